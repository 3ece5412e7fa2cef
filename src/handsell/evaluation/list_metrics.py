"""Metrics of the whole list: what a set of slates does beyond being right. Definitions in `metrics.DEFINITIONS`.

Lists are items (B, n) int32, padded with -1; I items in the catalog.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

ALPHA = 0.01  # of calibration, as in @steck2018calibrated
NAMES, SIZES = ("large", "middle", "small"), (0.5, 0.8)  # classes of creators, and where they begin


def coverage(items: np.ndarray, catalog: np.ndarray) -> float:
    """Share of the catalog (I,) bool that appears in any list; NaN for an empty catalog."""
    size = int(catalog.sum())
    shown = _exposure(items, len(catalog)) > 0
    return float((shown & catalog).sum() / size) if size else float("nan")


def gini(items: np.ndarray, catalog: np.ndarray) -> float:
    """Inequality of exposure over the catalog (I,) bool; NaN where nothing was shown."""
    return gini_of_counts(_exposure(items, len(catalog))[catalog])


def gini_of_counts(counts: np.ndarray) -> float:
    """Of exposures (I,); NaN where there is none. Items that were never shown need no sorting."""
    shown, size = np.sort(counts[counts > 0]), len(counts)
    if not len(shown):
        return float("nan")
    rank = 2.0 * np.arange(size - len(shown) + 1, size + 1) - size - 1
    return float((rank * shown).sum() / (size * shown.sum()))


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


def tag_mix(weight: sparse.csr_matrix, tags: sparse.csr_matrix) -> sparse.csr_matrix:
    """(B, number of tags) mix of the tags of weighted items (B, I), each spread evenly; rows add up to 1 or 0.

    tags (I, number of tags) as in `Snapshot.tag_matrix`: unit rows of equal values, so that squares are the shares.
    """
    share = sparse.csr_matrix((tags.data.astype(float) ** 2, tags.indices, tags.indptr), shape=tags.shape)
    total = weight @ share
    norm = np.asarray(total.sum(axis=1)).ravel()
    return (sparse.diags(np.divide(1, norm, out=np.zeros(len(norm)), where=norm > 0)) @ total).tocsr()


def as_weights(items: np.ndarray, size: int, weight: np.ndarray | None = None) -> sparse.csr_matrix:
    """(B, I) how often each item is in a list, or the sum of its positive weights (B, n)."""
    row, place = np.nonzero(items >= 0 if weight is None else (items >= 0) & (weight > 0))
    value = np.ones(len(row)) if weight is None else weight[row, place].astype(float)
    return sparse.csr_matrix((value, (row, items[row, place])), shape=(len(items), size))


def calibration_error(wanted: sparse.csr_matrix, shown: sparse.csr_matrix) -> np.ndarray:
    """(B,) KL(wanted ‖ (1 − α) shown + α wanted) of mixes (B, number of tags), α = ALPHA; NaN where one is empty."""
    wanted = wanted.tocsr()
    row = np.repeat(np.arange(wanted.shape[0]), np.diff(wanted.indptr))
    p, q = wanted.data, np.asarray(shown.tocsr()[row, wanted.indices]).ravel()
    terms = np.zeros(len(p))
    some = p > 0
    terms[some] = p[some] * np.log(p[some] / ((1 - ALPHA) * q[some] + ALPHA * p[some]))
    error = np.bincount(row, weights=terms, minlength=wanted.shape[0])
    known = (np.diff(wanted.indptr) > 0) & (np.diff(shown.tocsr().indptr) > 0)
    return np.where(known, error, np.nan)


def entropy(mix: sparse.csr_matrix) -> np.ndarray:
    """(B,) bits of mixes (B, ·) whose rows add up to 1; 0 for an empty one."""
    mix = mix.tocsr()
    row = np.repeat(np.arange(mix.shape[0]), np.diff(mix.indptr))
    some = mix.data > 0
    return np.bincount(row[some], weights=-mix.data[some] * np.log2(mix.data[some]), minlength=mix.shape[0])


def drift(items: np.ndarray, user: np.ndarray, time: np.ndarray, tags: sparse.csr_matrix) -> np.ndarray:
    """(B,) at each user's last request: entropy of the tags shown in the later half of their requests − in the earlier.

    NaN at all others, for users (B,) of fewer than two requests, and for unknown ones (-1). Of an odd number the middle
    request belongs to neither half.
    """
    order = np.lexsort((time, user))
    person, first, many = np.unique(user[order], return_index=True, return_counts=True)
    out = np.full(len(items), np.nan)
    held = np.flatnonzero((many >= 2) & (person >= 0))
    if not len(held):
        return out
    halves = [
        np.concatenate([order[first[u] : first[u] + many[u] // 2] for u in held]),
        np.concatenate([order[first[u] + many[u] - many[u] // 2 : first[u] + many[u]] for u in held]),
    ]
    group = np.repeat(np.arange(len(held)), many[held] // 2)
    member = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))))
    lists = as_weights(items, tags.shape[0])
    early, late = (entropy(tag_mix(member @ lists[rows], tags)) for rows in halves)
    out[order[first[held] + many[held] - 1]] = late - early
    return out


def repeat_rate(items: np.ndarray, user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(B,) share of a list that stood in the same user's list just before; NaN for a user's first, or an empty list."""
    out = np.full(len(items), np.nan)
    order = np.lexsort((time, user))
    before, now = order[:-1], order[1:]
    same = (user[before] == user[now]) & (user[now] >= 0)
    before, now = before[same], now[same]
    again = ((items[now][:, :, None] == items[before][:, None, :]) & (items[now] >= 0)[:, :, None]).any(axis=2)
    count = (items[now] >= 0).sum(axis=1)
    out[now] = np.divide(again.sum(axis=1), count, out=np.full(len(now), np.nan), where=count > 0)
    return out


def creator_sizes(creator: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """(C,) int8 class of each creator by the events (I,) of its items: 0 large, 1 middle, 2 small.

    creator (I,), -1 none. Large are the biggest that together have half of the events, small the smallest that
    together have a fifth.
    """
    known = creator >= 0
    events = np.bincount(creator[known], weights=popularity[known], minlength=int(creator.max(initial=-1)) + 1)
    order = np.argsort(-events, kind="stable")
    above = np.cumsum(events[order]) - events[order]  # events of the larger ones
    size = np.empty(len(events), np.int8)
    share = above / max(events.sum(), 1)
    size[order] = np.where(share < SIZES[0], 0, np.where(share < SIZES[1], 1, 2))
    return size


def small_share(items: np.ndarray, creator: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(B,) share of a list's items of known creator that are by small ones; NaN where none is known."""
    own = np.where(items >= 0, creator[np.maximum(items, 0)], -1)
    known = own >= 0
    small = known & (size[np.maximum(own, 0)] == 2) if len(size) else known
    count = known.sum(axis=1)
    return np.divide(small.sum(axis=1), count, out=np.full(len(items), np.nan), where=count > 0)


def exposure_by_size(items: np.ndarray, creator: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Share of all places with a known creator that each class of `creator_sizes` gets; NaN where there is none."""
    own = creator[items[items >= 0]]
    count = np.bincount(size[own[own >= 0]], minlength=3)
    return {name: float(c / count.sum()) if count.sum() else float("nan") for name, c in zip(NAMES, count, strict=True)}


def creator_coverage(items: np.ndarray, catalog: np.ndarray, creator: np.ndarray) -> float:
    """Share of the creators of a catalog (I,) bool who appear in any list; NaN where no creator is known."""
    known = np.unique(creator[catalog & (creator >= 0)])
    shown = np.unique(creator[items[items >= 0]])
    return float(np.isin(known, shown).mean()) if len(known) else float("nan")


def _shown(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row, place = np.nonzero(items >= 0)
    return row, items[row, place]


def _exposure(items: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(items[items >= 0], minlength=size)
