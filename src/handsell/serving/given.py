"""A caller's own items as candidates: every source says what it thinks of them, none is dropped."""

from __future__ import annotations

import logging

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.protocols import CandidateStage
from handsell.retrieval.stage import LocalCandidates
from handsell.retrieval.union import K0

log = logging.getLogger(__name__)


def scored_by_sources(stage: CandidateStage | None, requests: Requests, items: np.ndarray) -> Candidates:
    """Items (B, K), -1 padded, as candidates in the caller's order.

    A source's rank is its rank within the list. Retrievers that fail are named in `degraded`.
    """
    names, retrievers = _sources(stage)
    shape = (*items.shape, len(names))
    score = np.full(shape, np.nan, np.float32)
    degraded = []
    for s, name in enumerate(names):
        try:
            score[:, :, s] = retrievers[name].score(requests, items)
        except Exception:
            log.exception("retriever %s failed; ranking without it", name)
            degraded.append(f"retriever:{name}")
    score[items == NONE] = np.nan
    rank = _ranks(score)
    weights = np.array([getattr(stage.config, n).weight for n in names]) if isinstance(stage, LocalCandidates) else []
    fused = np.nansum(np.asarray(weights, np.float32) / (K0 + 1 + rank), axis=2, dtype=np.float32)
    return Candidates(items, fused, score, rank, fused, names, tuple(degraded))


def _sources(stage: CandidateStage | None):
    if isinstance(stage, LocalCandidates):
        return stage.sources, stage.retrievers
    return (), {}


def _ranks(score: np.ndarray) -> np.ndarray:
    """(B, K, S) float32 rank of each finite score within its list, best first; NaN where there is none."""
    order = np.argsort(np.argsort(-np.nan_to_num(score, nan=-np.inf), axis=1, kind="stable"), axis=1)
    return np.where(np.isfinite(score), order, np.nan).astype(np.float32)


def best_first(candidates: Candidates) -> Candidates:
    """Ordered by `score`, for when no ranker answered."""
    key = np.where(candidates.item == NONE, np.inf, -candidates.score)
    return candidates.reorder(np.argsort(key, axis=1, kind="stable"))
