"""Segments of flat arrays: segment i is `offsets[i]:offsets[i + 1]`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def offsets_from_counts(counts: ArrayLike) -> np.ndarray:
    """(N + 1,) int64 offsets of N segments of these lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def expand_segments(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers begin[i]..end[i] - 1 of all N segments in sequence (M,), and the segment i of each (M,)."""
    lengths = end - begin
    segment = np.repeat(np.arange(len(begin)), lengths)
    before = np.cumsum(lengths) - lengths
    return np.arange(len(segment)) + (begin - before)[segment], segment


def mark_run_starts(*keys: np.ndarray) -> np.ndarray:
    """(N,) bool: the first row, and rows where one of the parallel keys (N,) differs from the row before."""
    starts = np.ones(len(keys[0]), bool)
    starts[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return starts
