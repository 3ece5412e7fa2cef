"""A caller's own items as candidates: every source says what it thinks of them, none is dropped."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.protocols import CandidateStage, Retriever
from handsell.retrieval.fusion import K0
from handsell.retrieval.stage import LocalCandidates

log = logging.getLogger(__name__)


def scored_by_sources(stage: CandidateStage | None, requests: Requests, items: np.ndarray) -> Candidates:
    """Items (B, K), -1 padded, as candidates in the caller's order.

    A source's rank is its rank within the list. Retrievers that fail are named in `degraded`.
    """
    names, retrievers, weights = _sources(stage)
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
    fused = np.asarray(np.nansum(weights / (K0 + 1 + rank), axis=2), np.float32)
    return Candidates(items, fused, score, rank, fused, names, tuple(degraded))


def _sources(stage: CandidateStage | None) -> tuple[tuple[str, ...], Mapping[str, Retriever], np.ndarray]:
    """Names, retrievers and weights (S,) of a local stage's sources; none of any other stage."""
    if not isinstance(stage, LocalCandidates):
        return (), {}, np.zeros(0)
    weights = [stage.config[name].weight for name in stage.sources]
    return stage.sources, stage.retrievers, np.array(weights)


def _ranks(score: np.ndarray) -> np.ndarray:
    """(B, K, S) float32 rank of each finite score within its list, best first; NaN where there is none."""
    order = np.argsort(np.argsort(-np.nan_to_num(score, nan=-np.inf), axis=1, kind="stable"), axis=1)
    return np.where(np.isfinite(score), order, np.nan).astype(np.float32)


def best_first(candidates: Candidates) -> Candidates:
    """Ordered by `score`, for when no ranker answered."""
    key = np.where(candidates.item == NONE, np.inf, -candidates.score)
    return candidates.reorder(np.argsort(key, axis=1, kind="stable"))
