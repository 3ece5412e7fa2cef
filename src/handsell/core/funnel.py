"""The funnel, written once: candidates (≤ 1000) → ranking (→ 50) → re-ranking (→ n).

Offline evaluation, the simulator and every serving topology call `recommend`; they differ only in
whether a stage is an object in this process or a handle to one in another. Failure policy: a failed
retriever is dropped by the candidate stage and named; a failed ranker leaves retrieval order; a failed
re-ranker leaves ranking order; each is named in `degraded`, nothing is silent.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from handsell.core.batches import Candidates, Requests, Slates
from handsell.core.protocols import CandidateStage, RankingStage, RerankingStage

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Funnel:
    """The three stages and the widths between them."""

    candidates: CandidateStage
    ranking: RankingStage
    reranking: RerankingStage
    k: int = 1000  # candidates asked of retrieval
    ranked: int = 50  # candidates that ranking passes on

    async def recommend(self, requests: Requests, n: int) -> Slates:
        """Slates of n items for B requests; shorter only where the catalog has no more."""
        found = await self.candidates.candidates(requests, self.k)
        ranked = await self._rank(requests, found, max(self.ranked, n))
        return await self._rerank(requests, ranked, n)

    async def _rank(self, requests: Requests, found: Candidates, k: int) -> Candidates:
        try:
            return await self.ranking.rank(requests, found, k)
        except Exception:
            log.exception("ranking failed; serving in retrieval order")
            return replace(found.take_columns(k), degraded=(*found.degraded, "ranking"))

    async def _rerank(self, requests: Requests, ranked: Candidates, n: int) -> Slates:
        try:
            return await self.reranking.rerank(requests, ranked, n)
        except Exception:
            log.exception("re-ranking failed; serving in ranking order")
            return slates_in_order(ranked, n, degraded=(*ranked.degraded, "reranking"))


def slates_in_order(ranked: Candidates, n: int, degraded: tuple[str, ...] = ()) -> Slates:
    """The first n candidates as they stand: no diversity, no reasons."""
    top = ranked.take_columns(n)
    shape = top.item.shape
    return Slates(
        item=top.item,
        score=top.score,
        source=source_bits(top.source_rank),
        reason=np.zeros(shape, np.int8),
        reason_item=np.full(shape, -1, np.int32),
        propensity=np.ones(shape, np.float32),
        sources=top.sources,
        degraded=degraded or top.degraded,
    )


def source_bits(source_rank: np.ndarray) -> np.ndarray:
    """(B, K, S) ranks → (B, K) uint32 with bit s set where source s returned the item."""
    bits = (1 << np.arange(source_rank.shape[2], dtype=np.uint32)).astype(np.uint32)
    return (np.isfinite(source_rank) * bits).sum(axis=2, dtype=np.uint32)


def run_local(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a funnel whose stages all live in this process: it never waits, so it needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("a local stage waited for something: run this funnel in an event loop")
