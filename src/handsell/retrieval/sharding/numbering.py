"""The cut of items into S shards: item i is row i // S of shard i mod S, so that shards are equal in size and kind."""

from __future__ import annotations

import numpy as np


def find_items(rows: np.ndarray, shard: int, shards: int) -> np.ndarray:
    """Return the item numbers of rows (any shape) of a shard; -1 stays -1."""
    return np.where(rows < 0, rows, rows * shards + shard).astype(rows.dtype)


def count_rows(items: int, shard: int, shards: int) -> int:
    """Return the number of rows of a shard of a catalog of `items`."""
    return max(0, -(-(items - shard) // shards))


def is_own(items: np.ndarray, shard: int, shards: int) -> np.ndarray:
    """Return (any shape) bool, whether items belong to a shard; False for -1."""
    return (items >= 0) & (items % shards == shard)
