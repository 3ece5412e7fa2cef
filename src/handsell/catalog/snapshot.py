"""The item snapshot: everything that serving knows about every item, columnar and memory mapped."""

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


@dataclass(frozen=True, eq=False)  # equal to itself alone, so that it may be a key
class Snapshot:
    """I items by number, with item values as of the start of `as_of`'s day."""

    version: int  # rises with each snapshot of a catalog
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

    @cached_property
    def tag_matrix(self):
        """(I, number of tags) float32 CSR, each row of unit length: cosine of tags is a dot product."""
        from scipy import sparse

        counts = np.maximum(self.item_tags.lengths, 1)
        data = (1.0 / np.sqrt(counts))[self.item_tags.row_of_value].astype(np.float32)
        shape = (len(self), max(len(self.tags), 1))
        return sparse.csr_matrix((data, self.item_tags.values, self.item_tags.offsets), shape=shape)

    @cached_property
    def tag_holders(self):
        """(number of tags, I) CSR: row t holds the items that have tag t."""
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
            name: mapped(path / f"{name}.npy") for name in ("creator", "published", "expires", "available", "values")
        }
        return cls(
            version=about["version"],
            as_of=about["as_of"],
            value_names=tuple(about["value_names"]),
            items=Vocabulary.load(path / "items"),
            creators=Vocabulary.load(path / "creators"),
            tags=Vocabulary.load(path / "tags"),
            item_tags=Ragged(
                mapped(path / "tag_values.npy"),
                mapped(path / "tag_offsets.npy"),
            ),
            metadata=pa.ipc.open_file(pa.memory_map(str(path / "metadata.arrow"))).read_all(),
            **arrays,
        )


def mapped(path: Path) -> np.ndarray:
    """A saved array, read only, its pages shared between processes: a plain array, which is quicker to index."""
    return np.asarray(np.load(path, mmap_mode="r"))
