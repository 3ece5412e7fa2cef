"""The exact k nearest items by inner product over blocks of vectors, to measure an approximate index."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROWS = 65_536  # vectors converted to float32 at once


class Nearest:
    """The k nearest items of the blocks added so far, for Q queries; memory is Q × (block + 4 k)."""

    def __init__(self, queries: np.ndarray, k: int):
        self.queries, self.k = queries, k
        self.items = [np.zeros(0, np.int64) for _ in queries]
        self.scores = [np.zeros(0, np.float32) for _ in queries]
        self.least = np.full(len(queries), -np.inf, np.float32)

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        """Add items (N,) with vectors (N, D) float32."""
        for q, row in enumerate(self.queries @ vectors.T):
            better = np.flatnonzero(row > self.least[q])
            self.items[q] = np.concatenate([self.items[q], items[better]])
            self.scores[q] = np.concatenate([self.scores[q], row[better]])
            if len(self.scores[q]) > 4 * self.k:
                self._cut(q)

    def read_items(self) -> np.ndarray:
        """Return the nearest items (Q, k), not ordered; fewer columns where fewer items were added."""
        for q in range(len(self.queries)):
            self._cut(q)
        return np.stack(self.items) if self.items else np.zeros((0, 0), np.int64)

    def _cut(self, q: int) -> None:
        if len(self.scores[q]) <= self.k:
            return
        kept = np.argpartition(self.scores[q], len(self.scores[q]) - self.k)[-self.k :]
        self.items[q], self.scores[q] = self.items[q][kept], self.scores[q][kept]
        self.least[q] = self.scores[q].min()


def iterate_blocks(vectors: np.ndarray, known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield known items and their vectors as float32, ROWS at a time; `vectors` (I, D) may be mapped or float16."""
    for start in range(0, len(vectors), ROWS):
        items = start + np.flatnonzero(known[start : start + ROWS])
        if len(items):
            yield items, to_float32(vectors[start : start + ROWS][items - start])


def find_known(vectors: np.ndarray) -> np.ndarray:
    """Return (I,) bool: rows that are not all zeros."""
    parts = [(vectors[s : s + ROWS] != 0).any(axis=1) for s in range(0, len(vectors), ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def compute_max_norm(vectors: np.ndarray) -> float:
    """Return the largest norm of a row; 0 without rows."""
    parts = (to_float32(vectors[s : s + ROWS]) for s in range(0, len(vectors), ROWS))
    return float(np.sqrt(max((np.einsum("id,id->i", p, p).max() for p in parts), default=0.0)))


def to_float32(vectors: np.ndarray) -> np.ndarray:
    """Convert to float32; no copy if it already is."""
    return np.asarray(vectors, np.float32)
