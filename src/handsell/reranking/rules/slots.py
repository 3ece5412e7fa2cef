"""Positions that rules fill, one candidate after another, for all requests of a batch together."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE

FAR = 10_000  # more than any distance between positions


class Slots:
    """B slates of n positions over K candidates; value (B, K) float64, -inf where a candidate may not be shown."""

    def __init__(self, value: np.ndarray, n: int):
        self.value = value
        self.pin = np.full((len(value), n), NONE, np.int64)  # (B, n) column of the candidate at each position
        self.used = np.zeros(value.shape, bool)
        self.order = np.argsort(-value, axis=1, kind="stable")
        self.rank = np.empty_like(self.order)  # (B, K) rank of each candidate by value
        self._row = np.arange(len(value))[:, None]
        self.rank[self._row, self.order] = np.arange(value.shape[1])

    def put(self, rows: np.ndarray, mine: np.ndarray, within: np.ndarray, at: int | None = None) -> np.ndarray:
        """Place the best unused candidate of mine (B, K) in slates rows (B,) bool; return (B,) bool, where it worked.

        Without `at` the position is the candidate's rank by value, moved up into the first `within` (B,) positions.
        """
        may = mine & ~self.used & rows[:, None] & (self.value > -np.inf)
        every = self._row[:, 0]
        column = np.where(may, self.value, -np.inf).argmax(axis=1)
        wish = np.minimum(self.rank[every, column], within - 1) if at is None else np.full(len(rows), at)
        place = np.arange(self.pin.shape[1])
        far = np.abs(place - wish[:, None])
        far[(self.pin != NONE) | (place >= within[:, None])] = FAR
        if at is not None:
            far[far > 0] = FAR
        spot = far.argmin(axis=1)
        done = may.any(axis=1) & (far[every, spot] < FAR)
        self.pin[every[done], spot[done]] = column[done]
        self.used[every[done], column[done]] = True
        return done

    def count(self, mine: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Return (B,) how many of mine (B, K) have a position within the first `within` (B,)."""
        there = (self.pin != NONE) & (np.arange(self.pin.shape[1]) < within[:, None])
        return (there & mine[self._row, self.pin]).sum(axis=1)

    def surplus(self, mine: np.ndarray, most: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """Return (B, K) bool, the lowest of mine (B, K) beyond `most` (B,), without those that have a position.

        At least `needed` (B,) candidates are left.
        """
        available = self.value > -np.inf
        ordered = (mine & available & ~self.used)[self._row, self.order]
        spare = np.maximum(most - (mine & self.used).sum(axis=1), 0)
        over = ordered & (ordered.cumsum(axis=1) > spare[:, None])
        short = np.maximum(needed - (available.sum(axis=1) - over.sum(axis=1)), 0)
        over &= over.cumsum(axis=1) > short[:, None]
        surplus = np.zeros_like(over)
        surplus[self._row, self.order] = over
        return surplus
