"""External string ids ↔ permanent numbers: append-only, memory mapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handsell.core.batches import NONE


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """N ids; an id's number is its position and never changes.

    Ids are UTF-8 bytes in a fixed-width array: replicas share one mapped file, and a lookup is a binary search. A
    dictionary would need about 100 bytes per entry in every process.
    """

    encoded: np.ndarray  # (N,) bytes, by number
    order: np.ndarray  # (N,) int32, numbers sorted by id

    @classmethod
    def of(cls, ids: Iterable[str]) -> Vocabulary:
        """Number ids in the order given; a repeated id keeps its first number."""
        unique = list(dict.fromkeys(ids))
        encoded = _encode(unique)
        return cls(encoded, np.argsort(encoded, kind="stable").astype(np.int32))

    def __len__(self) -> int:
        return len(self.encoded)

    def number(self, ids: Sequence[str]) -> np.ndarray:
        """(M,) int32 numbers, -1 for unknown ids."""
        wanted = _encode(ids)
        if not len(self) or not len(wanted):
            return np.full(len(wanted), NONE, np.int32)
        place = np.searchsorted(self.encoded, wanted, sorter=self.order)
        found = self.order[np.minimum(place, len(self) - 1)]
        return np.where(self.encoded[found] == wanted, found, NONE).astype(np.int32)

    def ids(self, numbers: np.ndarray) -> list[str]:
        """External ids of numbers ≥ 0."""
        return [raw.decode() for raw in self.encoded[np.asarray(numbers)].tolist()]

    def extend(self, ids: Iterable[str]) -> Vocabulary:
        """Return a vocabulary with the unknown ones of `ids` appended; existing numbers do not change."""
        fresh = list(dict.fromkeys(ids))
        fresh = [i for i, n in zip(fresh, self.number(fresh), strict=True) if n == NONE]
        if not fresh:
            return self
        added = _encode(fresh)
        width = max(self.encoded.dtype.itemsize, added.dtype.itemsize, 1)
        encoded = np.concatenate([self.encoded.astype(f"S{width}"), added.astype(f"S{width}")])
        return Vocabulary(encoded, np.argsort(encoded, kind="stable").astype(np.int32))

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "ids.npy", self.encoded)
        np.save(path / "order.npy", self.order)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        return cls(np.load(path / "ids.npy", mmap_mode="r"), np.load(path / "order.npy", mmap_mode="r"))


def _encode(ids: Sequence[str]) -> np.ndarray:
    return np.array([i.encode() for i in ids], dtype="S") if len(ids) else np.zeros(0, "S1")
