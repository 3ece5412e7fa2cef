"""Metrics of the whole list: what a set of slates does beyond being right. Definitions in `metrics.DEFINITIONS`.

Lists are items (B, n) int32, padded with -1; I items in the catalogue.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def coverage(items: np.ndarray, catalogue: np.ndarray) -> float:
    """Share of the catalogue (I,) bool that appears in any list; NaN for an empty catalogue."""
    size = int(catalogue.sum())
    shown = _exposure(items, len(catalogue)) > 0
    return float((shown & catalogue).sum() / size) if size else float("nan")


def gini(items: np.ndarray, catalogue: np.ndarray) -> float:
    """Inequality of exposure over the catalogue (I,) bool; NaN where nothing was shown."""
    counts = np.sort(_exposure(items, len(catalogue))[catalogue])
    size, total = len(counts), counts.sum()
    if not total:
        return float("nan")
    rank = 2.0 * np.arange(1, size + 1) - size - 1
    return float((rank * counts).sum() / (size * total))


def intra_list_diversity(items: np.ndarray, tags: sparse.csr_matrix) -> np.ndarray:
    """(B,) 1 − mean pairwise cosine, tags (I, number of tags) with unit rows; NaN below two items.

    The sum over pairs is (‖Σv‖² − Σ‖v‖²) / 2, so no pair is ever formed.
    """
    row, item = _shown(items)
    count = np.bincount(row, minlength=len(items))
    lists = sparse.csr_matrix((np.ones(len(row)), (row, item)), shape=(len(items), tags.shape[0]))
    total = lists @ tags
    own = np.asarray(tags.multiply(tags).sum(axis=1), dtype=float).ravel()
    square = np.asarray(total.multiply(total).sum(axis=1), dtype=float).ravel()
    pairs = count * (count - 1) / 2
    similar = (square - lists @ own) / 2
    return 1.0 - np.divide(similar, pairs, out=np.full(len(items), np.nan), where=pairs > 0)


def self_information(popularity: np.ndarray) -> np.ndarray:
    """(I,) −log2 of each item's share of events, popularity (I,) counts ≥ 0; one is added to each item."""
    smoothed = np.asarray(popularity, float) + 1.0
    return -np.log2(smoothed / smoothed.sum())


def novelty(items: np.ndarray, surprise: np.ndarray) -> np.ndarray:
    """(B,) mean of surprise (I,) over a list; NaN for an empty one."""
    row, item = _shown(items)
    count = np.bincount(row, minlength=len(items))
    total = np.bincount(row, weights=surprise[item], minlength=len(items))
    return np.divide(total, count, out=np.full(len(items), np.nan), where=count > 0)


def serendipity(items: np.ndarray, gain: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(B,) share of the n places that are relevant (gain (B, n) > 0) and not in expected (B, m)."""
    surprising = np.zeros(items.shape, bool)
    for b in np.flatnonzero((gain > 0).any(axis=1)):
        surprising[b] = (gain[b] > 0) & ~np.isin(items[b], expected[b])
    return surprising.mean(axis=1) if items.shape[1] else np.zeros(len(items))


def _shown(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row, place = np.nonzero(items >= 0)
    return row, items[row, place]


def _exposure(items: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(items[items >= 0], minlength=size)
