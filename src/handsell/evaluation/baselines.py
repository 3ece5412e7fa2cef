"""Simple recommenders of a few lines each, fitted on the same events, to compare the models of a report with.

They use no content and no context, and their settings are fixed, not tuned. If liked items may be recommended again, a
user's own most frequent items and own latest items are two of the baselines; many published models do not reach the
first where people shop for groceries, nor the second in sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, lapack

from handsell.core.batches import NONE, Requests, expand_segments, offsets_from_counts
from handsell.data.interactions import Interactions

MAX_ITEMS = 15_000  # EASE is fitted on this many of the most liked items
EASE_REG = 200.0
RECENT_HALF_LIFE = 10  # a like counts half after this many later likes
TIE_BREAK = 1e-6  # weight of popularity, which orders items of equal score
CHUNK = 256  # requests scored at a time
BLOCK = 1_024  # rows of a matrix that are changed at a time


@dataclass(frozen=True)
class Baselines:
    """Likes of users in the fit window, and the likes of each request's user before the request."""

    liked: sparse.csr_matrix  # (U, I) float32, 1 if the user liked the item in the fit window
    past: sparse.csr_matrix  # (R, I) float32, number of likes before the request
    recent: sparse.csr_matrix  # (R, I) float32, likes before the request; the latest counts 1, earlier ones less
    latest: sparse.csr_matrix  # (R, I) float32, 1 / (1 + likes after the item's last like)
    repeats: bool  # whether liked items may be recommended again
    items: np.ndarray  # (I,) int32, the items of the columns: those with a like, which can be few of a catalog

    @classmethod
    def of(cls, fit: Interactions, events: Interactions, requests: Requests, repeats: bool) -> Baselines:
        """Build from the events of the fit window and from all events; those after a request are not used for it."""
        liked = fit.positives.matrix()
        liked.sum_duplicates()
        liked.data[:] = 1
        past, recent, latest = _likes_before(events.positives, requests)
        items = np.unique(np.concatenate([liked.indices, past.indices])).astype(np.int32)
        return cls(liked[:, items], past[:, items], recent[:, items], latest[:, items], repeats, items)

    def rank(self, eligible: Callable[[slice], np.ndarray], n: int = 10) -> dict[str, np.ndarray]:
        """Return name → items (R, n) int32, best first, padded with -1.

        `eligible(rows)` is a mask over the catalog, bool. Items without a like are not recommended.
        """
        lists: dict[str, list[np.ndarray]] = {}
        models = dict(self._models())
        for start in range(0, self.past.shape[0], CHUNK):
            rows = slice(start, start + CHUNK)
            mask = eligible(rows)[:, self.items]
            for name, score in models.items():
                best = _select_top(score(rows), mask, n)
                found = np.where(best == NONE, NONE, self.items.take(best, mode="clip")) if len(self.items) else best
                lists.setdefault(name, []).append(found.astype(np.int32))
        return {name: np.concatenate(parts) for name, parts in lists.items()}

    def _models(self) -> Iterator[tuple[str, Callable[[slice], np.ndarray]]]:
        """Yield (name, function from rows to scores (b, I))."""
        popularity = np.asarray(self.liked.sum(axis=0)).ravel()
        tie_break = TIE_BREAK * popularity / max(popularity.max(initial=0), 1)
        pairs = (self.liked.T @ self.liked).tocsr()
        kept = np.sort(np.argsort(-popularity, kind="stable")[:MAX_ITEMS])
        weights = _fit_ease(pairs[kept][:, kept].toarray().astype(np.float32))
        cosine = _scale_to_cosine(pairs, 1 / np.sqrt(np.maximum(popularity, 1e-9)))
        for name, likes in (("EASE", self.past.sign()), ("EASE, recent", self.recent)):
            yield name, partial(_score_with_ease, likes, weights, kept, tie_break)
        yield "item cosine, recent", partial(_score_with_neighbors, self.recent, cosine, tie_break)
        yield "popularity", partial(_score_with_neighbors, self.past * 0, cosine, tie_break)
        if self.repeats:
            yield "own most frequent", partial(_score_with_neighbors, self.past, None, tie_break)
            yield "own latest", partial(_score_with_neighbors, self.latest, None, tie_break)


def _likes_before(likes: Interactions, requests: Requests) -> tuple[sparse.csr_matrix, ...]:
    """Return the likes before each request (R, I): number, sum with weights that fall with age, the last."""
    begin = likes.user_offsets[np.maximum(requests.user, 0)]
    end = np.array([
        np.searchsorted(likes.time[b : likes.user_offsets[u + 1]], t) + b if u != NONE else b
        for u, b, t in zip(requests.user.tolist(), begin.tolist(), requests.time.tolist(), strict=True)
    ], np.int64)  # fmt: skip
    offsets = offsets_from_counts(end - begin)
    at, row = expand_segments(begin, end)
    later = end[row] - 1 - at  # number of later likes of the same request
    shape = (len(requests), likes.n_items)
    past = sparse.csr_matrix((np.ones(len(at), np.float32), likes.item[at], offsets), shape)
    recent = sparse.csr_matrix((np.exp2(-later / RECENT_HALF_LIFE).astype(np.float32), likes.item[at], offsets), shape)
    past.sum_duplicates()
    recent.sum_duplicates()
    key = row * np.int64(likes.n_items) + likes.item[at]
    last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]
    latest = sparse.csr_matrix((1 / (1 + later[last]).astype(np.float32), (row[last], likes.item[at[last]])), shape)
    return past, recent, latest


def _scale_to_cosine(pairs: sparse.csr_matrix, scale: np.ndarray) -> sparse.csr_matrix:
    """Multiply counts (I, I) by the scale (I,) of both items, in place; an item is no neighbor of itself."""
    for begin in range(0, pairs.shape[0], BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, pairs.shape[0]))
        first, last = pairs.indptr[[rows[0], rows[-1] + 1]].tolist()
        own = np.repeat(scale[rows], np.diff(pairs.indptr[rows[0] : rows[-1] + 2]))
        pairs.data[first:last] *= own * scale[pairs.indices[first:last]]
    pairs.setdiag(0)
    return pairs


def _fit_ease(gram: np.ndarray) -> np.ndarray:
    """Return the weights (J, J) of EASE [steck2019] from the gram matrix (J, J) float32 of the likes, in its memory."""
    if not len(gram):
        return gram
    gram[np.diag_indices_from(gram)] += EASE_REG
    factor, _ = cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)
    weights = lapack.spotri(factor, lower=1, overwrite_c=1)[0].T  # the inverse, of which LAPACK fills one triangle
    for begin in range(0, len(weights), BLOCK):
        here, later = slice(begin, begin + BLOCK), slice(begin + BLOCK, None)
        upper = np.triu(weights[here, here])
        weights[here, here] = upper + np.triu(upper, 1).T
        weights[later, here] = weights[here, later].T
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0)
    return weights


def _score_with_neighbors(
    likes: sparse.csr_matrix, neighbors: sparse.csr_matrix | None, tie_break: np.ndarray, rows: slice
) -> np.ndarray:
    """Return scores (b, I): the likes themselves, or their products with the item similarities (I, I)."""
    return (likes[rows] if neighbors is None else likes[rows] @ neighbors).toarray() + tie_break


def _score_with_ease(
    likes: sparse.csr_matrix, weights: np.ndarray, kept: np.ndarray, tie_break: np.ndarray, rows: slice
) -> np.ndarray:
    """Return scores (b, I); items that EASE was not fitted on have their popularity alone."""
    scores = np.tile(tie_break, (likes[rows].shape[0], 1))
    scores[:, kept] += likes[rows][:, kept] @ weights
    return scores


def _select_top(scores: np.ndarray, eligible: np.ndarray, n: int) -> np.ndarray:
    scores = np.where(eligible, scores, -np.inf)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    best = np.where(np.isfinite(np.take_along_axis(scores, best, 1)), best, NONE)
    return np.pad(best, ((0, 0), (0, n - best.shape[1])), constant_values=NONE)
