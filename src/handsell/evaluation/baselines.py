"""Simple recommenders of a few lines each, on the same events: whoever reads a report knows what they could have had.

They know no content and no context. Settings are fixed and not tuned. Where seen items may come back, a user's own
most frequent items are the baseline that many published models miss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse

from handsell.core.batches import NONE, Requests
from handsell.core.offsets import expand_segments, offsets_from_counts
from handsell.data.interactions import Interactions

MOST_ITEMS = 15_000  # the most liked items that EASE is fitted on
EASE_REG = 200.0
RECENT_HALF_LIFE = 10  # likes after it at which a like counts half
TINY = 1e-6  # share of popularity that orders what a baseline knows nothing of


@dataclass(frozen=True)
class Baselines:
    """Users' likes of the fit window, and everybody's likes before each request (R, I): all, and the recent more."""

    liked: sparse.csr_matrix  # (U, I) float32, 1 for a like
    past: sparse.csr_matrix  # (R, I) float32, how often it was liked
    recent: sparse.csr_matrix  # (R, I) float32, the latest like at 1, half for every RECENT_HALF_LIFE likes after
    repeats: bool  # whether liked items may be shown again

    @classmethod
    def of(cls, fit: Interactions, events: Interactions, requests: Requests, repeats: bool) -> Baselines:
        """`events` holds what users did before and after the requests; only what came before is used."""
        liked = fit.positives.matrix()
        liked.sum_duplicates()
        liked.data[:] = 1
        past, recent = _likes_before(events.positives, requests)
        return cls(liked, past, recent, repeats)

    def lists(self, eligible: Callable[[slice], np.ndarray], n: int = 10) -> dict[str, np.ndarray]:
        """Name → items (R, n), best first among `eligible(rows)` (b, I), -1 where nothing is left."""
        found: dict[str, list[np.ndarray]] = {}
        models = dict(self._models())
        for start in range(0, self.past.shape[0], 256):
            rows = slice(start, start + 256)
            may = eligible(rows)
            for name, score in models.items():
                found.setdefault(name, []).append(_first(score(rows), may, n))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _models(self) -> Iterator[tuple[str, Callable[[slice], np.ndarray]]]:
        popularity = np.asarray(self.liked.sum(axis=0)).ravel()
        beside = TINY * popularity / max(popularity.max(initial=0), 1)
        pairs = (self.liked.T @ self.liked).tocsr()
        norm = np.sqrt(np.maximum(popularity, 1e-9))
        cosine = sparse.diags(1 / norm) @ pairs @ sparse.diags(1 / norm)
        cosine.setdiag(0)
        kept = np.sort(np.argsort(-popularity, kind="stable")[:MOST_ITEMS])
        weights = _ease(pairs[kept][:, kept].toarray().astype(np.float32))
        for name, given in (("EASE", self.past.sign()), ("EASE, recent", self.recent)):
            yield name, partial(_spread, given, weights, kept, beside)
        yield "item cosine, recent", partial(_vote, self.recent, cosine, beside)
        yield "popularity", partial(_vote, self.past * 0, cosine, beside)
        if self.repeats:
            yield "own most frequent", partial(_vote, self.past, None, beside)


def _likes_before(liked: Interactions, requests: Requests) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    begin = liked.user_offsets[np.maximum(requests.user, 0)]
    end = np.array([
        np.searchsorted(liked.time[b : liked.user_offsets[u + 1]], t) + b if u != NONE else b
        for u, b, t in zip(requests.user.tolist(), begin.tolist(), requests.time.tolist(), strict=True)
    ], np.int64)  # fmt: skip
    offsets = offsets_from_counts(end - begin)
    at, row = expand_segments(begin, end)
    later = end[row] - 1 - at
    shape = (len(requests), liked.n_items)
    past = sparse.csr_matrix((np.ones(len(at), np.float32), liked.item[at], offsets), shape)
    recent = sparse.csr_matrix((np.exp2(-later / RECENT_HALF_LIFE).astype(np.float32), liked.item[at], offsets), shape)
    past.sum_duplicates()
    recent.sum_duplicates()
    return past, recent


def _ease(gram: np.ndarray) -> np.ndarray:
    """Weights (J, J) of [steck2019] from the gram matrix (J, J) of the likes."""
    gram[np.diag_indices_from(gram)] += EASE_REG
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def _vote(given: sparse.csr_matrix, neighbors: sparse.csr_matrix | None, beside: np.ndarray, rows: slice) -> np.ndarray:
    """(b, I) what the rows' likes say of every item; of themselves without neighbors."""
    return (given[rows] if neighbors is None else given[rows] @ neighbors).toarray() + beside


def _spread(
    given: sparse.csr_matrix, weights: np.ndarray, kept: np.ndarray, beside: np.ndarray, rows: slice
) -> np.ndarray:
    out = np.tile(beside, (given[rows].shape[0], 1))
    out[:, kept] += given[rows][:, kept] @ weights
    return out


def _first(scores: np.ndarray, eligible: np.ndarray, n: int) -> np.ndarray:
    scores = np.where(eligible, scores, -np.inf)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return np.where(np.isfinite(np.take_along_axis(scores, best, 1)), best, NONE).astype(np.int32)
