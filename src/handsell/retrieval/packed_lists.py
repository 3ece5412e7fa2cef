"""Lists of packed 4-bit codes in a file that every replica maps.

FAISS maps the lists of its other indexes, but copies these at loading (its `BlockInvertedLists` own aligned memory).
Searches only ask an index's lists for their sizes, codes and ids, so the same bytes in a mapped file serve as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from handsell.core.errors import BundleError

BLOCKS, SIZES = "lists.bin", "list_sizes.npy"  # list after list its codes, then its int64 ids; both fill whole blocks
ID_BYTES = 8


def save(index: Any, path: Path, file: str) -> None:
    """The index to `file` without its lists, these beside it."""
    import faiss

    lists = faiss.downcast_InvertedLists(index.invlists)
    sizes = np.array([lists.list_size(i) for i in range(index.nlist)], np.int64)
    with (path / BLOCKS).open("wb") as out:
        for i, (size, room) in enumerate(zip(sizes, _rooms(sizes, lists.n_per_block), strict=True)):
            if not size:
                continue
            ids = np.full(room, -1, np.int64)
            ids[:size] = faiss.rev_swig_ptr(lists.get_ids(i), int(size))
            out.write(faiss.rev_swig_ptr(lists.get_codes(i), int(room) * index.code_size).data)
            out.write(ids.data)
    np.save(path / SIZES, sizes)
    empty = faiss.BlockInvertedLists(index.nlist, lists.n_per_block, lists.block_size)
    owned, index.own_invlists = index.own_invlists, False
    index.replace_invlists(empty, False)
    try:
        faiss.write_index(index, str(path / file))
    finally:
        index.replace_invlists(lists, owned)


def load(path: Path, file: str) -> Any:
    """The index, its lists mapped read-only; raises BundleError where their file is not as long as it should be."""
    import faiss

    index = faiss.read_index(str(path / file))
    block = faiss.downcast_InvertedLists(index.invlists).n_per_block
    sizes = np.load(path / SIZES)
    rooms = _rooms(sizes, block)
    ends = np.cumsum(rooms) * (index.code_size + ID_BYTES)
    total, came = int(ends[-1]), (path / BLOCKS).stat().st_size
    if came != total:
        raise BundleError(f"{path / BLOCKS}: {total} bytes are expected, {came} came: build the bundle again")
    mapped = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(path / BLOCKS))
    begins = np.concatenate([[0], ends[:-1]])
    table = np.ascontiguousarray(np.stack([sizes, rooms, begins], axis=1), np.uint64)  # as FAISS's OnDiskOneList
    faiss.memcpy(mapped.lists.data(), faiss.swig_ptr(table), table.nbytes)
    mapped.totsize, mapped.read_only = total, True
    mapped.prefetch_nthread = 0  # of threads that every search would start to read ahead
    mapped.do_mmap()
    index.replace_invlists(mapped, True)
    mapped.this.disown()
    return index


def _rooms(sizes: np.ndarray, block: int) -> np.ndarray:
    """Places of each list, in whole blocks."""
    return -(-sizes // block) * block
