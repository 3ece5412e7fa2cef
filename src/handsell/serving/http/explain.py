"""One item's way through the stages for one user, stage by stage, in whatever topology they run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from handsell.config import Config
from handsell.core.batches import Requests, Slates
from handsell.ranking.explain import RankingExplanation
from handsell.reranking.explain import RerankingExplanation
from handsell.retrieval.explain import CandidateExplanation
from handsell.serving.graph.stages import StageRun

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """A stage that failed has None and is named in `degraded`; one that the item did not reach has None too."""

    requests: Requests  # B = 1
    item: int
    n: int
    cold: bool
    candidates: CandidateExplanation | None
    ranking: RankingExplanation | None
    reranking: RerankingExplanation | None
    order: Slates | None  # all that came from ranking, in the order of re-ranking
    degraded: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """shown, or the first stage that kept the item from the slate."""
        if self.candidates is None:
            return "unknown"
        if self.candidates.removed_by:
            return "filtered"
        if not self.candidates.kept:
            return "not_retrieved" if self.candidates.rank is None else "beyond_candidates"
        if self.ranking is None:
            return "unknown"
        if self.ranking.rank >= self.ranking.k:
            return "cut_by_ranking"
        if self.reranking is None:
            return "unknown"
        if self.reranking.place is None:
            return "filtered"
        return "shown" if self.reranking.place < self.n else "below_the_slate"


async def explain_item(
    trip: StageRun, requests: Requests, item: int, n: int, cold: bool, config: Config
) -> ItemExplanation:
    """The story of an item in a slate of n; what the funnel does, with one item watched."""
    stages, k = trip.stages, max(config.ranking.ranked, n)
    degraded: list[str] = []
    found = await _try(
        "candidates", trip, lambda: stages.candidate_story(requests, item, config.retrieval.candidates), degraded
    )
    ranked = order = None
    if found is not None:
        degraded += found[0].degraded
        ranked = await _try("ranking", trip, lambda: stages.ranking_story(requests, found[0], item, k), degraded)
    if found is not None and ranked is not None and found[1].kept and ranked[1].rank < k:
        order = await _try("reranking", trip, lambda: stages.reranking_story(requests, ranked[0], item), degraded)
    return ItemExplanation(
        requests, item, n, cold, found and found[1], ranked and ranked[1], order and order[1], order and order[0],
        tuple(degraded),
    )  # fmt: skip


async def _try(stage: str, trip: StageRun, call: Callable[[], Awaitable[T]], degraded: list[str]) -> T | None:
    """The stage's answer; None where it fails, and its name in `degraded`."""
    try:
        return await trip.within(stage, call)
    except Exception:
        log.exception("%s could not be explained", stage)
        degraded.append(stage)
        return None
