"""The attributes of items from which their content vectors are computed, as sparse rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import Ragged
from handsell.core.hashing import hash_rows, mix
from handsell.data.late_scipy import sparse

BUCKETS = 2**16  # hash buckets of words


@dataclass(frozen=True)
class ContentRows:
    """The content of N items."""

    tags: Ragged  # (N, *) int32
    metadata: pa.Table  # N rows

    @classmethod
    def of(cls, snapshot: Snapshot, items: np.ndarray | None = None) -> ContentRows:
        """Read some items of a snapshot, or all of them."""
        if items is None:
            return cls(snapshot.item_tags, snapshot.metadata)
        return cls(snapshot.item_tags.take(items), snapshot.read_metadata(items))

    def __len__(self) -> int:
        return len(self.tags)

    def count_tags(self, tags: int) -> sparse.csr_matrix:
        """Return (N, tags) the tags below this number."""
        known = self.tags.where(self.tags.values < tags)
        data = np.ones(len(known.values), np.float32)
        return sparse.csr_matrix((data, known.values, known.offsets), shape=(len(self), max(tags, 1)))

    def count_words(self) -> sparse.csr_matrix:
        """Count the hashed words (N, BUCKETS) of titles and texts."""
        from sklearn.feature_extraction.text import HashingVectorizer  # slow to import

        hashing = HashingVectorizer(
            n_features=BUCKETS, norm=None, alternate_sign=False, stop_words="english", dtype="f4"
        )
        return hashing.transform(self.join_texts()).tocsr()

    def join_texts(self) -> list[str]:
        columns = [self.metadata[c].to_pylist() for c in ("title", "text") if c in self.metadata.column_names]
        return [" ".join(filter(None, row)) for row in zip(*columns, strict=True)] if columns else [""] * len(self)

    def read_numbers(self, columns: Sequence[str]) -> np.ndarray:
        """Return (N, C) float64 of numeric columns, NaN where unknown."""
        out = np.full((len(self), len(columns)), np.nan)
        for c, name in enumerate(columns):
            if name in self.metadata.column_names:
                out[:, c] = self.metadata[name].cast(pa.float64()).to_numpy()
        return out

    def sum_creators(self, size: int) -> np.ndarray | None:
        """Return (N, size) the sum of the creators' random directions; None where no item has a creator."""
        if "creators" not in self.metadata.column_names or not size:
            return None
        lists = self.metadata["creators"].combine_chunks()
        names = lists.flatten().dictionary_encode()
        row = np.repeat(np.arange(len(self)), pc.fill_null(pc.list_value_length(lists), 0).to_numpy())
        known = names.is_valid().to_numpy(zero_copy_only=False)
        if not known.any():
            return None
        number = pc.fill_null(names.indices, 0).to_numpy()[known]
        pairs, shape = (row[known], number), (len(self), len(names.dictionary))
        who = sparse.csr_matrix((np.ones(len(number), np.float32), pairs), shape)
        return np.asarray(who @ draw_directions(names.dictionary, size))


def draw_directions(ids: pa.Array, size: int) -> np.ndarray:
    """Return unit vectors (N, size) of random signs that depend on each id alone [johnson1984]."""
    seed = hash_rows(ids.cast(pa.string()))
    words = np.stack([mix(seed ^ mix(np.full(len(ids), w, np.uint64))) for w in range(-(-size // 64))], axis=1)
    bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1)[:, :size]
    return ((2.0 * bits - 1) / np.sqrt(size)).astype(np.float32)
