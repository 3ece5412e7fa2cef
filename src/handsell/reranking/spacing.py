"""Constraints on the order of a slate: a gap between related items, and a limit for each tag within a window."""

from __future__ import annotations

import numpy as np

CATEGORY_WINDOW, CREATOR_GAP = "category_window", "same_creator_gap"


class ItemGap:
    """At least `gap` positions between two related items; related (B, K, K) bool."""

    def __init__(self, related: np.ndarray, gap: int, name: str):
        rows, width, _ = related.shape
        self.name, self._gap = name, gap
        self.related, self.gap = related, gap
        self._related = related.reshape(rows * width, width)
        self._near: list[np.ndarray] = []  # (B, K) bool, candidates related to each of the last `gap` items

    @property
    def breaks(self) -> np.ndarray | None:
        return sum(self._near[1:], start=self._near[0].astype(np.float64)) if self._near else None

    def add(self, position: int, place: np.ndarray) -> None:
        self._near = [*self._near, self._related.take(place, axis=0)][-self._gap :]


class CategoryWindow:
    """At most `most` (B,) items of a tag in any `window` (B,) positions in a row; window 0: no limit.

    has (B, K, U) bool: which of its row's U tags an item has. An item with several tags counts for each of them.
    """

    name = CATEGORY_WINDOW

    def __init__(self, has: np.ndarray, window: np.ndarray, most: np.ndarray, n: int):
        rows, width, columns = has.shape
        self._has, self._flat = has.astype(np.float32), has.reshape(rows * width, columns)
        self._window, self._row = window, np.arange(rows)
        self._one = int(window[0]) if (window == window[0]).all() else None  # as in most batches
        self._most = np.where(window > 0, most, np.iinfo(np.int16).max).astype(np.int16)[:, None]
        self._placed = np.zeros((n + 1, rows, columns), np.int16)  # tags by position; the last stays zero
        self._count = np.zeros((rows, columns), np.int16)  # items of each tag in the last window - 1 positions

    @property
    def breaks(self) -> np.ndarray | None:
        full = self._count >= self._most
        if not full.any():
            return None
        return (self._has @ full.astype(np.float32)[:, :, None])[:, :, 0] > 0

    def add(self, position: int, place: np.ndarray) -> None:
        self._placed[position] = self._flat.take(place, axis=0)
        self._count += self._placed[position]
        if self._one is not None:
            if (leaves := position + 1 - self._one) >= 0:
                self._count -= self._placed[min(leaves, position)]
            return
        leaving = position + 1 - self._window
        gone = np.where(leaving >= 0, np.minimum(leaving, position), len(self._placed) - 1)
        self._count -= self._placed[gone, self._row]
