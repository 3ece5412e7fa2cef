"""The funnel: candidates (≤ 1000) → ranking (→ 50) → re-ranking (→ n).

Offline evaluation, the simulator and every serving topology call `recommend`; they differ only in whether a stage is
an object in this process or a client of another. A failed retriever is left out by the candidate stage; a failed
ranker leaves the order of retrieval; a failed re-ranker leaves the order of ranking. Each is named in `degraded`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests, Slates
from handsell.core.failures import Failures
from handsell.core.protocols import CandidateStage, RankingStage, RerankingStage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Funnel:
    """The three stages and the widths between them."""

    candidates: CandidateStage
    ranking: RankingStage
    reranking: RerankingStage
    k: int = 1000  # candidates requested from retrieval
    ranked: int = 50  # candidates that ranking passes on

    async def recommend(self, requests: Requests, n: int) -> Slates:
        """Return slates of n items for B requests; a slate is shorter only if fewer items are eligible."""
        found = await self.candidates.candidates(requests, self.k)
        ranked = await self._rank(requests, found, max(self.ranked, n))
        return await self._rerank(requests, ranked, n)

    async def _rank(self, requests: Requests, found: Candidates, k: int) -> Candidates:
        failures = Failures()
        with failures.tolerate("ranking"):
            return await self.ranking.rank(requests, found, k)
        return replace(found.take_columns(k), degraded=(*found.degraded, *failures.names))

    async def _rerank(self, requests: Requests, ranked: Candidates, n: int) -> Slates:
        failures = Failures()
        with failures.tolerate("reranking"):
            return await self.reranking.rerank(requests, ranked, n)
        return build_slates_in_order(ranked, n, degraded=(*ranked.degraded, *failures.names))


def build_slates_in_order(ranked: Candidates, n: int, degraded: tuple[str, ...] = ()) -> Slates:
    """Return the first n candidates in their order, without diversity and reasons."""
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


def remove_items(slates: Slates, gone: np.ndarray) -> Slates:
    """Return slates without the items `gone` (B, n) bool; later ones move up, and padding fills the end."""
    order = np.argsort(gone | (slates.item == NONE), axis=1, kind="stable")
    removed = np.take_along_axis(gone, order, 1)
    empty = {"item": NONE, "score": 0, "source": 0, "reason": 0, "reason_item": NONE, "propensity": 1}
    moved: dict[str, Any] = {
        name: np.where(removed, fill, np.take_along_axis(getattr(slates, name), order, 1)).astype(
            getattr(slates, name).dtype
        )
        for name, fill in empty.items()
    }
    relaxed = slates.relaxed if slates.relaxed is None else np.take_along_axis(slates.relaxed, order, 1)
    return replace(slates, **moved, relaxed=relaxed)


def pack_source_bits(source_rank: np.ndarray) -> np.ndarray:
    """(B, K, S) ranks → (B, K) uint32 with bit s set where source s returned the item."""
    bits = (1 << np.arange(source_rank.shape[2], dtype=np.uint32)).astype(np.uint32)
    return (np.isfinite(source_rank) * bits).sum(axis=2, dtype=np.uint32)


def run_local(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine without an event loop; it must not wait, as with stages in this process."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("a local stage waited for something: run this funnel in an event loop")
