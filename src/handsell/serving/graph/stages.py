"""The three stages as serving calls them: in this process, or behind handles that keep the same contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Candidates, Requests, Slates
from handsell.core.errors import BundleError
from handsell.core.funnel import Funnel
from handsell.core.paths import Layout
from handsell.core.protocols import CandidateStage, RankingStage, RerankingStage
from handsell.eligibility.mask import Eligibility
from handsell.features.served_log import FEATURE_LOG
from handsell.ranking.explain import RankingExplanation, explain_ranking
from handsell.ranking.stage import LocalRanking
from handsell.reranking.explain import RerankingExplanation, explain_reranking
from handsell.reranking.rules.live_rules import watch_rules
from handsell.reranking.stage import LocalReranking
from handsell.retrieval.explain import CandidateExplanation, explain_candidate
from handsell.retrieval.stage import LocalCandidates
from handsell.serving.graph.circuit_breaker import Breaker
from handsell.serving.graph.score_items import scored_by_sources
from handsell.serving.telemetry.feature_log import FeatureLog, Sample
from handsell.serving.telemetry.observability import Metrics

T = TypeVar("T")

BUDGET = {"features": 0.3, "candidates": 0.6, "ranking": 0.85, "reranking": 1.0}
"""By which share of the deadline a stage must have answered, so that a late one leaves time for the next."""


class NotHeld(BundleError):
    """A stage's replica does not hold the bundle that a hop is stamped with."""


class StageCalls(Protocol):
    """What the gateway needs of the stages, wherever they run, for one bundle."""

    async def states(self) -> dict[str, str]:
        """By stage: whether some replica holds the bundle, loads it, or why it cannot (see following.py)."""
        ...

    async def candidates(self, requests: Requests, k: int) -> Candidates: ...

    async def given(self, requests: Requests, items: np.ndarray) -> Candidates:
        """The caller's own items (B, K) as candidates, scored by every source."""
        ...

    async def rank(self, requests: Requests, found: Candidates, k: int, samples: Sequence[Sample]) -> Candidates: ...

    async def rerank(self, requests: Requests, ranked: Candidates, n: int) -> Slates: ...

    # one item's way through each stage, for one request: see the story.py beside each stage

    async def candidate_story(
        self, requests: Requests, item: int, k: int
    ) -> tuple[Candidates, CandidateExplanation]: ...

    async def ranking_story(
        self, requests: Requests, found: Candidates, item: int, k: int
    ) -> tuple[Candidates, RankingExplanation]: ...

    async def reranking_story(
        self, requests: Requests, ranked: Candidates, item: int
    ) -> tuple[Slates, RerankingExplanation]: ...


@dataclass(frozen=True)
class LocalStages:
    """Stages in this process: all three in the fused topology, one in each deployment of the graph."""

    candidate_stage: CandidateStage | None = None
    ranking_stage: RankingStage | None = None
    reranking_stage: RerankingStage | None = None
    feature_log: FeatureLog | None = None

    async def states(self) -> dict[str, str]:
        return {}

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        assert self.candidate_stage is not None
        return await self.candidate_stage.candidates(requests, k)

    async def given(self, requests: Requests, items: np.ndarray) -> Candidates:
        return scored_by_sources(self.candidate_stage, requests, items)

    async def rank(self, requests: Requests, found: Candidates, k: int, samples: Sequence[Sample] = ()) -> Candidates:
        assert self.ranking_stage is not None
        ranked = await self.ranking_stage.rank(requests, found, k)
        if samples and self.feature_log is not None and isinstance(self.ranking_stage, LocalRanking):
            self.feature_log.record(self.ranking_stage, requests, found, ranked, samples)
        return ranked

    async def rerank(self, requests: Requests, ranked: Candidates, n: int) -> Slates:
        assert self.reranking_stage is not None
        return await self.reranking_stage.rerank(requests, ranked, n)

    async def candidate_story(self, requests: Requests, item: int, k: int) -> tuple[Candidates, CandidateExplanation]:
        assert isinstance(self.candidate_stage, LocalCandidates)
        return explain_candidate(self.candidate_stage, requests, item, k)

    async def ranking_story(
        self, requests: Requests, found: Candidates, item: int, k: int
    ) -> tuple[Candidates, RankingExplanation]:
        assert self.ranking_stage is not None
        return await explain_ranking(self.ranking_stage, requests, found, item, k)

    async def reranking_story(
        self, requests: Requests, ranked: Candidates, item: int
    ) -> tuple[Slates, RerankingExplanation]:
        assert isinstance(self.reranking_stage, LocalReranking)
        return await explain_reranking(self.reranking_stage, requests, ranked, item)


@dataclass(frozen=True)
class StageRun:
    """One batch's way through the stages: each stage in its time, observed; keeps core.protocols for the funnel.

    A stage that is late, or was late for others just now (see `Breaker`), raises TimeoutError: the funnel leaves it out
    and names it. `lacking` names stages whose replica does not hold the bundle.
    """

    stages: StageCalls
    metrics: Metrics
    breakers: Mapping[str, Breaker]  # by stage
    began: float  # event loop time at which the oldest request of the batch arrived
    deadline_s: float
    samples: tuple[Sample, ...] = ()
    lacking: list[str] = field(default_factory=list)

    def funnel(self, config: Config) -> Funnel:
        return Funnel(self, self, self, config.retrieval.candidates, config.ranking.ranked)

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        found = await self.within("candidates", lambda: self.stages.candidates(requests, k))
        self.metrics.found(found)
        return found

    async def given(self, requests: Requests, items: np.ndarray) -> Candidates:
        return await self.within("candidates", lambda: self.stages.given(requests, items))

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        return await self.within("ranking", lambda: self.stages.rank(requests, candidates, k, self.samples))

    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates:
        return await self.within("reranking", lambda: self.stages.rerank(requests, candidates, n))

    async def within(self, stage: str, call: Callable[[], Awaitable[T]]) -> T:
        """The call's answer; raises TimeoutError when the stage's share of the deadline is over."""
        loop = asyncio.get_running_loop()
        started, limit = loop.time(), self.began + BUDGET[stage] * self.deadline_s
        try:
            return await self.breakers[stage].wait(call, limit)
        except NotHeld:
            self.lacking.append(stage)
            raise
        finally:
            self.metrics.stage_seconds.labels(stage).observe(loop.time() - started)


def ruled_reranking(snapshot: Snapshot, config: Config) -> LocalReranking:
    """Re-ranking by the deployment's business rules, which are followed in their file; raises ConfigError."""
    eligibility = Eligibility.of(snapshot, config)
    return LocalReranking(snapshot, eligibility, config, rules=watch_rules(snapshot, eligibility, config))


def open_feature_log(config: Config, bundle: str) -> FeatureLog | None:
    """The log of served feature vectors; None where nothing is sampled."""
    if not config.serving.feature_log_share:
        return None
    return FeatureLog(Layout(config.state).logs / FEATURE_LOG, bundle)
