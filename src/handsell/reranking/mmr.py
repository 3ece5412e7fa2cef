"""Maximal marginal relevance, greedy, with the spacing rule inside (@carbonell1998use).

Each position takes the candidate of largest (1 - diversity) · relevance - diversity · likeness to the
most alike item already chosen. Relevance is the score stretched to 0..1 within the request, so that one
`diversity` means the same for every request.
"""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE
from handsell.reranking.spacing import COST

SINK = 100.0  # taken off candidates without a finite score: more than relevance, less than breaking the spacing


def select(
    score: np.ndarray,
    allowed: np.ndarray,
    alike: np.ndarray,
    same_creator: np.ndarray,
    n: int,
    diversity: float,
    gap: int,
) -> np.ndarray:
    """(B, n) int64 chosen columns of K candidates in slate order, -1 where no allowed one is left.

    score (B, K); allowed (B, K) bool, others are never chosen; alike (B, K, K) in 0..1; same_creator
    (B, K, K) bool. Ties go to the earlier candidate. The loop runs over positions, not over requests.
    """
    rows, width = score.shape
    chosen = np.full((rows, n), NONE, np.int64)
    base = np.where(allowed, (1 - diversity) * relevance(score, allowed) - SINK * ~np.isfinite(score), -np.inf)
    first = np.arange(rows) * width  # flat place of each row's first candidate
    flat = base.reshape(-1)
    penalty = np.zeros_like(base)
    costs = _costs(alike, same_creator, diversity)
    near: list[np.ndarray] = []  # spacing costs of the last `gap` items chosen
    value = base
    for position in range(min(n, width)):
        pick = value.argmax(axis=1)
        place = pick + first
        chosen[:, position] = pick
        flat[place] = -np.inf
        cost = costs.take(place, axis=0)
        np.maximum(penalty, cost[:, :width], out=penalty)
        value = base - penalty
        if gap:
            near = [*near, cost[:, width:]][-gap:]
            for each in near:
                value -= each
    chosen[np.arange(n) >= allowed.sum(axis=1)[:, None]] = NONE  # allowed ones are always taken first
    return chosen


def relevance(score: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """(B, K) float64 scores stretched to 0..1 over each row's allowed candidates; 0 where not finite."""
    use = allowed & np.isfinite(score)
    score = score.astype(np.float64)
    low = np.where(use, score, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(use, score, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(use, (score - np.where(np.isfinite(low), low, 0.0)) / spread, 0.0)


def _costs(alike: np.ndarray, same_creator: np.ndarray, diversity: float) -> np.ndarray:
    """(B·K, 2K): for a chosen candidate, its diversity cost and its spacing cost to all others, side by side."""
    rows, width, _ = alike.shape
    costs = np.empty((rows, width, 2 * width))
    np.multiply(alike, diversity, out=costs[:, :, :width])
    np.multiply(same_creator, COST, out=costs[:, :, width:])
    return costs.reshape(rows * width, 2 * width)
