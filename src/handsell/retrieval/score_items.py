"""Score a caller's own items with every retriever; no item is dropped."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.failures import Failures
from handsell.retrieval.fusion import K0
from handsell.retrieval.stage import LocalCandidates


async def score_items(stage: LocalCandidates, requests: Requests, items: np.ndarray) -> Candidates:
    """Items (B, K), -1 padded, as candidates in the caller's order.

    A source's rank is its rank within the list. Retrievers that fail are named in `degraded`.
    """
    score = np.full((*items.shape, len(stage.sources)), np.nan, np.float32)
    failures = Failures()
    for s, name in enumerate(stage.sources):
        with failures.tolerate(f"retriever:{name}"):
            score[:, :, s] = stage.retrievers[name].score(requests, items)
    score[items == NONE] = np.nan
    rank = _rank_finite(score)
    weights = np.array([stage.config[name].weight for name in stage.sources])
    fused = np.asarray(np.nansum(weights / (K0 + 1 + rank), axis=2), np.float32)
    return Candidates(items, fused, score, rank, fused, stage.sources, failures.names)


def _rank_finite(score: np.ndarray) -> np.ndarray:
    """(B, K, S) float32 rank of each finite score within its list, best first; NaN where there is none."""
    order = np.argsort(np.argsort(-np.nan_to_num(score, nan=-np.inf), axis=1, kind="stable"), axis=1)
    return np.where(np.isfinite(score), order, np.nan).astype(np.float32)


def best_first(candidates: Candidates) -> Candidates:
    """Order by `score`, for when ranking failed."""
    key = np.where(candidates.item == NONE, np.inf, -candidates.score)
    return candidates.reorder(np.argsort(key, axis=1, kind="stable"))
