"""The item snapshot: all item data that serving needs, columnar and memory mapped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import Ragged

ALWAYS = np.iinfo(np.int64).min  # published before any time
NEVER = np.iinfo(np.int64).max  # expires after any time
SLICED = 256  # rows of metadata up to which slices are joined, which works for every Arrow type


@dataclass(frozen=True, eq=False)  # compared by identity, so that it can be a dictionary key
class Snapshot:
    """I items by number; values are as of the start of the day of `as_of`."""

    version: int  # increases with each snapshot of a catalog
    as_of: int  # µs
    items: Vocabulary
    creators: Vocabulary
    tags: Vocabulary
    creator: np.ndarray  # (I,) int32 primary creator, -1 none
    item_tags: Ragged  # (I, *) int32
    published: np.ndarray  # (I,) int64 µs, ALWAYS where unknown
    expires: np.ndarray  # (I,) int64 µs, NEVER where unknown
    available: np.ndarray  # (I,) bool
    values: np.ndarray  # (I, Fi) float32, NaN = unknown
    value_names: tuple[str, ...]  # names of the Fi columns
    metadata: pa.Table  # I rows in handsell.data.schemas.ITEMS plus extra columns

    def __len__(self) -> int:
        return len(self.creator)

    @property
    def base(self) -> Snapshot:
        """The snapshot without live changes."""
        return self

    def is_deleted(self, items: np.ndarray) -> np.ndarray:
        """Return whether items ≥ 0 (any shape) have been deleted by a live change."""
        return np.zeros(np.shape(items), bool)

    def read_metadata(self, items: np.ndarray) -> pa.Table:
        """Return the metadata of items (n,)."""
        if len(items) > SLICED:
            return self.metadata.take(pa.array(np.asarray(items, np.int64)))
        return join_slices(self.metadata, [self.metadata.slice(item, 1) for item in items.tolist()])

    def find_tagged(self, tags: np.ndarray) -> np.ndarray:
        """Return (I,) bool, items that have one of these tags."""
        holders, found = self.items_by_tag, np.zeros(len(self), bool)
        for tag in tags.tolist():
            found[holders.indices[holders.indptr[tag] : holders.indptr[tag + 1]]] = True
        return found

    @cached_property
    def tag_matrix(self):
        """(I, number of tags) float32 CSR, rows of unit length, so that a dot product is the cosine of two tag sets."""
        from scipy import sparse

        counts = np.maximum(self.item_tags.lengths, 1)
        data = (1.0 / np.sqrt(counts))[self.item_tags.row_of_value].astype(np.float32)
        shape = (len(self), max(len(self.tags), 1))
        return sparse.csr_matrix((data, self.item_tags.values, self.item_tags.offsets), shape=shape)

    @cached_property
    def items_by_tag(self):
        """(number of tags, I) CSR; row t contains the items that have tag t."""
        return self.tag_matrix.T.tocsr()

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for name in ("items", "creators", "tags"):
            getattr(self, name).save(path / name)
        for name in ("creator", "published", "expires", "available", "values"):
            np.save(path / f"{name}.npy", getattr(self, name))
        np.save(path / "tag_values.npy", self.item_tags.values)
        np.save(path / "tag_offsets.npy", self.item_tags.offsets)
        with (
            pa.OSFile(str(path / "metadata.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, self.metadata.schema) as out,
        ):
            out.write_table(self.metadata)
        about = {"version": self.version, "as_of": self.as_of, "value_names": self.value_names}
        (path / "snapshot.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, path: Path) -> Snapshot:
        about = json.loads((path / "snapshot.json").read_text())
        arrays = {
            name: load_mapped(path / f"{name}.npy")
            for name in ("creator", "published", "expires", "available", "values")
        }
        return cls(
            version=about["version"],
            as_of=about["as_of"],
            value_names=tuple(about["value_names"]),
            items=Vocabulary.load(path / "items"),
            creators=Vocabulary.load(path / "creators"),
            tags=Vocabulary.load(path / "tags"),
            item_tags=Ragged(
                load_mapped(path / "tag_values.npy"),
                load_mapped(path / "tag_offsets.npy"),
            ),
            metadata=pa.ipc.open_file(pa.memory_map(str(path / "metadata.arrow"))).read_all(),
            **arrays,
        )


def join_slices(table: pa.Table, slices: list[pa.Table]) -> pa.Table:
    """Join slices of one schema, that of `table`."""
    return pa.concat_tables(slices) if slices else table.schema.empty_table()


def load_mapped(path: Path) -> np.ndarray:
    """Map a saved array read-only, with pages shared between processes.

    The result is a plain array, because indexing `np.memmap` is slower.
    """
    return np.asarray(np.load(path, mmap_mode="r"))
