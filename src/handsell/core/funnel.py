"""The funnel: candidates (≤ 1000) → ranking (→ 50) → re-ranking (→ n).

Offline evaluation and every serving topology call `recommend`; a stage is an object in this process or a handle to
one in another. Failure policy: without a failed retriever, the other sources' candidates are used; without ranking,
retrieval order; without re-ranking, ranking order. Each failure is named in `degraded`.
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
    k: int = 1000  # candidates requested from retrieval
    ranked: int = 50  # candidates passed on by ranking

    async def recommend(self, requests: Requests, n: int) -> Slates:
        """Return slates of n items for B requests; shorter where fewer items are eligible."""
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
            return build_slates_in_order(ranked, n, degraded=(*ranked.degraded, "reranking"))


def build_slates_in_order(ranked: Candidates, n: int, degraded: tuple[str, ...] = ()) -> Slates:
    """Make slates of the first n candidates, without rules, diversity or reasons."""
    top = ranked.take_columns(n)
    shape = top.item.shape
    return Slates(
        item=top.item,
        score=top.score,
        source=pack_source_bits(top.source_rank),
        reason=np.zeros(shape, np.int8),
        reason_item=np.full(shape, -1, np.int32),
        propensity=np.ones(shape, np.float32),
        sources=top.sources,
        degraded=degraded or top.degraded,
    )


def pack_source_bits(source_rank: np.ndarray) -> np.ndarray:
    """Convert ranks (B, K, S) to (B, K) uint32, bit s set where source s returned the item."""
    bits = (1 << np.arange(source_rank.shape[2], dtype=np.uint32)).astype(np.uint32)
    return (np.isfinite(source_rank) * bits).sum(axis=2, dtype=np.uint32)


def run_local(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine whose stages are local: it never suspends, so it needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("expected local stages that never suspend, got one that awaits: use an event loop")
