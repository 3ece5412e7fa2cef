"""The k best of a row, ties by the lower item number: the only place where retrieval sorts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.core.batches import NONE


def find_top(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k highest of (N,) finite scores, best first; equal scores keep their order."""
    if k <= 0:
        return np.zeros(0, np.int64)
    if len(scores) > 2 * k:
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        chosen = np.flatnonzero(scores >= threshold)
        return chosen[np.argsort(-scores[chosen], kind="stable")[:k]]
    return np.argsort(-scores, kind="stable")[:k]


def select_top(items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of items (N,), given in ascending order, with scores (N,)."""
    chosen = find_top(scores, k)
    return items[chosen], scores[chosen]


def pad_rows(rows: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (items, scores), each at most k long → (B, k) items padded with -1 and scores with NaN."""
    items = np.full((len(rows), k), NONE, np.int32)
    scores = np.full((len(rows), k), np.nan, np.float32)
    for b, (item, score) in enumerate(rows):
        items[b, : len(item)] = item
        scores[b, : len(item)] = score
    return items, scores


def make_empty_rows(rows: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What a retriever says that knows nothing of B requests."""
    return np.full((rows, k), NONE, np.int32), np.full((rows, k), np.nan, np.float32)


def fit_mask(eligible: np.ndarray, items: int) -> np.ndarray:
    """(B, I) the mask cut or filled to a model's I items: beyond the mask nothing is eligible.

    The catalog grows after a model is fitted (the delta), so the mask is often the wider one.
    """
    if eligible.shape[1] >= items:
        return eligible[:, :items]
    missing = np.zeros((len(eligible), items - eligible.shape[1]), bool)
    return np.concatenate([eligible, missing], axis=1)


def gather(table: np.ndarray, items: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(B, K) table (I,) or (B, I) looked up at items; NaN where an item is -1, beyond I, or not known (I,)."""
    inside = (items >= 0) & (items < len(known))
    if not inside.any():
        return np.full(items.shape, np.nan, np.float32)
    at = np.where(inside, items, 0)
    values = table[at] if table.ndim == 1 else np.take_along_axis(table, at.astype(np.int64), 1)
    return np.where(inside & known[at], values, np.nan).astype(np.float32)
