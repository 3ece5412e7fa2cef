"""Metrics of lists beyond relevance: diversity, novelty, coverage, exposure … `metrics.DEFINITIONS` defines each.

Lists are items (B, n) int32, padded with -1; I is the number of items in the catalog.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

ALPHA = 0.01  # smoothing of calibration, as in [steck2018calibrated]
CREATOR_CLASSES = ("large", "middle", "small")
CLASS_BOUNDS = (0.5, 0.8)  # share of events by larger creators from which on a creator is middle, small


def coverage(items: np.ndarray, catalog: np.ndarray) -> float:
    """Return the share of the catalog (I,) bool that appears in any list; NaN for an empty catalog."""
    size = int(catalog.sum())
    shown = _count_exposures(items, len(catalog)) > 0
    return float((shown & catalog).sum() / size) if size else float("nan")


def gini(items: np.ndarray, catalog: np.ndarray) -> float:
    """Return the Gini coefficient of exposures over the catalog (I,) bool; NaN if nothing was shown."""
    return gini_of_counts(_count_exposures(items, len(catalog))[catalog])


def gini_of_counts(counts: np.ndarray) -> float:
    """Return the Gini coefficient of counts (I,); NaN if all are 0."""
    shown, size = np.sort(counts[counts > 0]), len(counts)  # zeros need no sorting
    if not len(shown):
        return float("nan")
    rank = 2.0 * np.arange(size - len(shown) + 1, size + 1) - size - 1
    return float((rank * shown).sum() / (size * shown.sum()))


def intra_list_diversity(items: np.ndarray, tags: sparse.csr_matrix) -> np.ndarray:
    """Return (B,): 1 − mean pairwise cosine; tags (I, number of tags) with unit rows; NaN for fewer than two items.

    The sum over pairs is (‖Σv‖² − Σ‖v‖²) / 2, so pairs are not computed one by one.
    """
    row, item = _list_places(items)
    count = np.bincount(row, minlength=len(items))
    lists = sparse.csr_matrix((np.ones(len(row)), (row, item)), shape=(len(items), tags.shape[0]))
    total = lists @ tags
    own = np.asarray(tags.multiply(tags).sum(axis=1), dtype=float).ravel()
    square = np.asarray(total.multiply(total).sum(axis=1), dtype=float).ravel()
    pairs = count * (count - 1) / 2
    similar = (square - lists @ own) / 2
    return 1.0 - np.divide(similar, pairs, out=np.full(len(items), np.nan), where=pairs > 0)


def self_information(popularity: np.ndarray) -> np.ndarray:
    """Return (I,): −log2 of each item's share of events, from counts ≥ 0 (I,) to each of which 1 is added."""
    smoothed = np.asarray(popularity, float) + 1.0
    return -np.log2(smoothed / smoothed.sum())


def novelty(items: np.ndarray, information: np.ndarray) -> np.ndarray:
    """Return (B,): mean self-information (I,) of the items of a list; NaN for an empty one."""
    row, item = _list_places(items)
    count = np.bincount(row, minlength=len(items))
    total = np.bincount(row, weights=information[item], minlength=len(items))
    return np.divide(total, count, out=np.full(len(items), np.nan), where=count > 0)


def serendipity(items: np.ndarray, gain: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return (B,): share of the n places whose item is relevant (gain (B, n) > 0) and not in expected (B, m)."""
    surprising = np.zeros(items.shape, bool)
    for b in np.flatnonzero((gain > 0).any(axis=1)):
        surprising[b] = (gain[b] > 0) & ~np.isin(items[b], expected[b])
    return surprising.mean(axis=1) if items.shape[1] else np.zeros(len(items))


def tag_shares(weight: sparse.csr_matrix, tags: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return (B, number of tags): tag shares of weighted items (B, I); rows add up to 1, or 0 without tags.

    An item's weight is divided evenly among its tags. tags (I, number of tags) as in `Snapshot.tag_matrix`: the values
    of a row are equal and their squares add up to 1.
    """
    share = sparse.csr_matrix((tags.data.astype(float) ** 2, tags.indices, tags.indptr), shape=tags.shape)
    total = weight @ share
    norm = np.asarray(total.sum(axis=1)).ravel()
    return (sparse.diags(np.divide(1, norm, out=np.zeros(len(norm)), where=norm > 0)) @ total).tocsr()


def item_weights(items: np.ndarray, size: int, weight: np.ndarray | None = None) -> sparse.csr_matrix:
    """Return (B, I): how often each item is in a list, or the sum of its positive weights (B, n)."""
    row, place = np.nonzero(items >= 0 if weight is None else (items >= 0) & (weight > 0))
    value = np.ones(len(row)) if weight is None else weight[row, place].astype(float)
    return sparse.csr_matrix((value, (row, items[row, place])), shape=(len(items), size))


def calibration_error(target: sparse.csr_matrix, shown: sparse.csr_matrix) -> np.ndarray:
    """Return (B,): KL(target ‖ (1 − α) shown + α target) of tag shares (B, number of tags), α = ALPHA.

    NaN where one of the two is empty.
    """
    target = target.tocsr()
    row = np.repeat(np.arange(target.shape[0]), np.diff(target.indptr))
    p, q = target.data, np.asarray(shown.tocsr()[row, target.indices]).ravel()
    terms = np.zeros(len(p))
    some = p > 0
    terms[some] = p[some] * np.log(p[some] / ((1 - ALPHA) * q[some] + ALPHA * p[some]))
    error = np.bincount(row, weights=terms, minlength=target.shape[0])
    known = (np.diff(target.indptr) > 0) & (np.diff(shown.tocsr().indptr) > 0)
    return np.where(known, error, np.nan)


def entropy(shares: sparse.csr_matrix) -> np.ndarray:
    """Return (B,): entropy in bits of rows (B, ·) that add up to 1; 0 for an empty row."""
    shares = shares.tocsr()
    row = np.repeat(np.arange(shares.shape[0]), np.diff(shares.indptr))
    some = shares.data > 0
    return np.bincount(row[some], weights=-shares.data[some] * np.log2(shares.data[some]), minlength=shares.shape[0])


def drift(items: np.ndarray, user: np.ndarray, time: np.ndarray, tags: sparse.csr_matrix) -> np.ndarray:
    """Return (B,): entropy of the tags shown in the later half of a user's requests − in the earlier half.

    The value is at each user's last request; all others are NaN, and so are users (B,) with fewer than two requests and
    unknown users (-1). Of an odd number of requests the middle one belongs to neither half.
    """
    order = np.lexsort((time, user))
    distinct, first, count = np.unique(user[order], return_index=True, return_counts=True)
    change = np.full(len(items), np.nan)
    users = np.flatnonzero((count >= 2) & (distinct >= 0))
    if not len(users):
        return change
    halves = [
        np.concatenate([order[first[u] : first[u] + count[u] // 2] for u in users]),
        np.concatenate([order[first[u] + count[u] - count[u] // 2 : first[u] + count[u]] for u in users]),
    ]
    group = np.repeat(np.arange(len(users)), count[users] // 2)
    member = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))))
    lists = item_weights(items, tags.shape[0])
    early, late = (entropy(tag_shares(member @ lists[rows], tags)) for rows in halves)
    change[order[first[users] + count[users] - 1]] = late - early
    return change


def repeat_rate(items: np.ndarray, user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return (B,): share of a list that was also in the same user's previous list.

    NaN for a user's first request and for an empty list.
    """
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
    """Return (C,) int8: class of each creator by the number of events (I,) of their items; 0 large, 1 middle, 2 small.

    creator (I,), -1 for none. Large are the creators with the most events, who together have half of them; small are
    those with the fewest, who together have a fifth.
    """
    known = creator >= 0
    events = np.bincount(creator[known], weights=popularity[known], minlength=int(creator.max(initial=-1)) + 1)
    order = np.argsort(-events, kind="stable")
    above = np.cumsum(events[order]) - events[order]  # events of larger creators
    size = np.empty(len(events), np.int8)
    share = above / max(events.sum(), 1)
    size[order] = np.where(share < CLASS_BOUNDS[0], 0, np.where(share < CLASS_BOUNDS[1], 1, 2))
    return size


def small_share(items: np.ndarray, creator: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return (B,): share of small creators among a list's items of known creator; NaN if no creator is known."""
    own = np.where(items >= 0, creator[np.maximum(items, 0)], -1)
    known = own >= 0
    small = known & (size[np.maximum(own, 0)] == 2) if len(size) else known
    count = known.sum(axis=1)
    return np.divide(small.sum(axis=1), count, out=np.full(len(items), np.nan), where=count > 0)


def exposure_by_size(items: np.ndarray, creator: np.ndarray, size: np.ndarray) -> dict[str, float]:
    """Return class → share of all places with a known creator; NaN if there is no such place."""
    own = creator[items[items >= 0]]
    count = np.bincount(size[own[own >= 0]], minlength=3)
    shares = count / count.sum() if count.sum() else np.full(3, np.nan)
    return dict(zip(CREATOR_CLASSES, shares.tolist(), strict=True))


def creator_coverage(items: np.ndarray, catalog: np.ndarray, creator: np.ndarray) -> float:
    """Return the share of the creators of a catalog (I,) bool who appear in any list; NaN if no creator is known."""
    known = np.unique(creator[catalog & (creator >= 0)])
    shown = np.unique(creator[items[items >= 0]])
    return float(np.isin(known, shown).mean()) if len(known) else float("nan")


def _list_places(items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (row, item) of every place that is not padding."""
    row, place = np.nonzero(items >= 0)
    return row, items[row, place]


def _count_exposures(items: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(items[items >= 0], minlength=size)
