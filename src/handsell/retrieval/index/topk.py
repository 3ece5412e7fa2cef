"""Top-k selection by row; ties are ordered by item number. All retrievers use these functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.core.batches import NONE


def find_top(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the positions of the k highest of (N,) finite scores, best first; equal scores keep their order."""
    if k <= 0:
        return np.zeros(0, np.int64)
    if len(scores) > 2 * k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= threshold)
        return chosen[np.argsort(-scores[chosen], kind="stable")[:k]]
    return np.argsort(-scores, kind="stable")[:k]


def select_top(items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of items (N,), given in ascending order, and their scores."""
    chosen = find_top(scores, k)
    return items[chosen], scores[chosen]


def pad_rows(rows: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Stack rows of (items, scores), each at most k long: items (B, k) padded with -1, scores padded with NaN."""
    items = np.full((len(rows), k), NONE, np.int32)
    scores = np.full((len(rows), k), np.nan, np.float32)
    for b, (item, score) in enumerate(rows):
        items[b, : len(item)] = item
        scores[b, : len(item)] = score
    return items, scores


def make_empty_rows(rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the result (rows, k) of a retriever that found no item: all padding."""
    return np.full((rows, k), NONE, np.int32), np.full((rows, k), np.nan, np.float32)


def fit_mask(eligible: np.ndarray, items: int) -> np.ndarray:
    """Cut or extend the mask to a model's number of items (B, items); items beyond the mask are not eligible.

    The mask is often wider, since the catalog grows after a model is fitted.
    """
    if eligible.shape[1] >= items:
        return eligible[:, :items]
    missing = np.zeros((len(eligible), items - eligible.shape[1]), bool)
    return np.concatenate([eligible, missing], axis=1)


def gather(table: np.ndarray, items: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Look up a table (I,) or (B, I) at items (B, K); NaN where an item is -1, beyond I, or not in `known` (I,)."""
    inside = (items >= 0) & (items < len(known))
    if not inside.any():
        return np.full(items.shape, np.nan, np.float32)
    at = np.where(inside, items, 0)
    values = table[at] if table.ndim == 1 else np.take_along_axis(table, at.astype(np.int64), 1)
    return np.where(inside & known[at], values, np.nan).astype(np.float32)
