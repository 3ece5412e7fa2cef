"""Storage of packed 4-bit lists in a file that all replicas map.

FAISS maps the lists of its other indexes, but copies these at loading, since its `BlockInvertedLists` own aligned
memory. A search only reads sizes, codes and ids of lists, so that the same bytes can be read from a mapped file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from handsell.core.errors import BundleError

HEAD = "ivf_pq.faiss"  # the index without its lists
BLOCKS, SIZES = "lists.bin", "list_sizes.npy"  # per list its codes, then its int64 ids, both padded to whole blocks
ID_BYTES = 8


def save_lists(index: Any, path: Path) -> None:
    """Save the index and its lists; raises ValueError for a loaded index, whose lists are mapped."""
    faiss = _faiss()
    lists = faiss.downcast_InvertedLists(index.invlists)
    if not isinstance(lists, faiss.BlockInvertedLists):
        raise ValueError(f"expected an index in memory, got one with mapped lists: copy its files to {path}")
    sizes = np.array([lists.list_size(i) for i in range(index.nlist)], np.int64)
    with (path / BLOCKS).open("wb") as out:
        for i, (size, room, _) in enumerate(_lay_out(sizes, lists.n_per_block, index.code_size)):
            if size:
                ids = np.full(room, -1, np.int64)
                ids[:size] = faiss.rev_swig_ptr(lists.get_ids(i), int(size))
                out.write(faiss.rev_swig_ptr(lists.get_codes(i), int(room) * index.code_size).data)
                out.write(ids.data)
    np.save(path / SIZES, sizes)
    empty = faiss.BlockInvertedLists(index.nlist, lists.n_per_block, lists.block_size)
    owned, index.own_invlists = index.own_invlists, False
    index.replace_invlists(empty, False)
    try:
        faiss.write_index(index, str(path / HEAD))
    finally:
        index.replace_invlists(lists, owned)


def load_lists(path: Path) -> Any:
    """Load the index with its lists mapped read-only; raises BundleError where files are missing or inconsistent."""
    faiss = _faiss()
    for name in (HEAD, BLOCKS, SIZES):
        if not (path / name).exists():
            raise BundleError(f"expected {path / name}, which is missing: train a new bundle")
    index, sizes = faiss.read_index(str(path / HEAD)), np.load(path / SIZES)
    if len(sizes) != index.nlist or sizes.sum() != index.ntotal:
        raise BundleError(
            f"{path / SIZES}: expected {index.nlist} lists of {index.ntotal} items, got {len(sizes)} of {sizes.sum()}: "
            "train a new bundle"
        )
    block = faiss.downcast_InvertedLists(index.invlists).n_per_block
    places = _lay_out(sizes, block, index.code_size)
    total, got = int(places[:, 1].sum()) * (index.code_size + ID_BYTES), (path / BLOCKS).stat().st_size
    if got != total:
        raise BundleError(f"{path / BLOCKS}: expected {total} bytes, got {got}: train a new bundle")
    mapped = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(path / BLOCKS))
    faiss.memcpy(mapped.lists.data(), faiss.swig_ptr(places), places.nbytes)
    mapped.totsize, mapped.read_only = total, True
    mapped.prefetch_nthread = 0  # no threads that read ahead of every search
    mapped.do_mmap()
    index.replace_invlists(mapped, True)
    mapped.this.disown()
    return index


def _lay_out(sizes: np.ndarray, block: int, code_bytes: int) -> np.ndarray:
    """Return (L, 3) uint64, as FAISS's OnDiskOneList: items of each list, capacity of its blocks, first byte."""
    rooms = -(-sizes // block) * block
    ends = np.cumsum(rooms) * (code_bytes + ID_BYTES)
    return np.ascontiguousarray(np.stack([sizes, rooms, ends - rooms * (code_bytes + ID_BYTES)], axis=1), np.uint64)


def _faiss() -> Any:
    """Import FAISS: slow to import, and only `ivf_pq` needs it; untyped, since its stubs lack methods."""
    import faiss

    return faiss
