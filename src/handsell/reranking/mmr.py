"""Maximal marginal relevance (@carbonell1998use): the cost is the similarity to the most similar chosen item.

With utility (1 - diversity) · relevance this is MMR as published. Relevance is the score scaled to 0..1 within the
request, so that one `diversity` has the same effect on every request.
"""

from __future__ import annotations

import numpy as np

from handsell.core.kernels import compiled


class MarginalRelevance:
    """Cost: diversity (B,) · greatest similarity (B, K, K) in 0..1 to a chosen item."""

    def __init__(self, similarity: np.ndarray, diversity: np.ndarray):
        rows, width, _ = similarity.shape
        self._costs = (similarity * diversity[:, None, None]).reshape(rows * width, width)
        self.cost = np.zeros((rows, width), self._costs.dtype)

    def add(self, position: int, place: np.ndarray) -> None:
        np.maximum(self.cost, self._costs.take(place, axis=0), out=self.cost)


def scale_scores(score: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return relevance (B, K) float64: scores scaled to 0..1 over each row's allowed candidates; 0 where not finite."""
    score = score.astype(np.float64)
    if compiled is not None and score.size:
        out = np.empty(score.shape)
        compiled.scale_scores(np.ascontiguousarray(score), np.ascontiguousarray(allowed, bool), out, len(out))
        return out
    use = allowed & np.isfinite(score)
    low = np.where(use, score, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(use, score, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(use, (score - np.where(np.isfinite(low), low, 0.0)) / spread, 0.0)
