"""Calls of the three stages, in this process or behind Serve handles, under one failure policy.

A call names a stage and an operation: a method of the stage's object, or a function whose first argument is the
object, such as `explain_ranking`. So a new operation needs no change here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from opentelemetry.trace import SpanKind

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Candidates, Requests, Slates
from handsell.core.errors import BundleError
from handsell.core.failures import Failures
from handsell.core.funnel import Funnel
from handsell.core.protocols import CandidateStage, RankingStage, RerankingStage
from handsell.reranking.explain import rerank_uncounted
from handsell.serving.graph.circuit_breaker import Breaker
from handsell.serving.telemetry.feature_log import Sample
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.tracing import trace

Operation = str | Callable[..., Awaitable[Any]]

STAGES = ("candidates", "ranking", "reranking")
BUDGET = {"features": 0.3, "candidates": 0.6, "ranking": 0.85, "reranking": 1.0}
"""Share of the deadline by which a stage must have answered, so that a late one leaves time for the next."""
READ_SHARE = 0.1
"""Share of the deadline that a batch has for reading its feature rows, however long it has waited for a slot."""


class BundleNotHeld(BundleError):
    """A stage's replica does not hold the bundle that a call is made for."""


class StageClient(Protocol):
    """Calls the three stages of one bundle, wherever they run."""

    async def call(self, stage: str, operation: Operation, *args: Any) -> Any: ...

    async def states(self) -> dict[str, str]:
        """By stage: whether a replica holds the bundle, loads it, or why it cannot (see bundle_watcher.py)."""
        ...


@dataclass(frozen=True)
class LocalStages:
    """Stages in this process: all three in the fused topology, one in each deployment of the graph."""

    candidates: CandidateStage | None = None
    ranking: RankingStage | None = None
    reranking: RerankingStage | None = None

    def with_snapshot(self, snapshot: Snapshot) -> LocalStages:
        """Return the stages on the next version of the live catalog."""
        return LocalStages(*(_follow(stage, snapshot) for stage in (self.candidates, self.ranking, self.reranking)))

    async def call(self, stage: str, operation: Operation, *args: Any) -> Any:
        held = getattr(self, stage)
        if isinstance(operation, str):
            return await getattr(held, operation)(*args)
        return await operation(held, *args)

    async def states(self) -> dict[str, str]:
        return {}


def _follow(stage: Any, snapshot: Snapshot) -> Any:
    """Return the stage on a version of the live catalog; one that does not read the catalog stays as it is."""
    return stage.with_snapshot(snapshot) if hasattr(stage, "with_snapshot") else stage


@dataclass(frozen=True)
class StageRun:
    """One batch's calls of the stages: each within its share of the deadline, behind its circuit breaker, observed.

    Keeps the stage protocols of handsell.core, so that the funnel runs on it. A late stage raises TimeoutError;
    `missing` names stages whose replica does not hold the bundle.
    """

    stages: StageClient
    metrics: Metrics
    breakers: Mapping[str, Breaker]  # by stage
    began: float  # event loop time at which the oldest request of the batch arrived
    deadline_s: float
    failures: Failures
    samples: tuple[Sample, ...] = ()  # requests whose feature vectors are to be logged
    missing: list[str] = field(default_factory=list)

    def funnel(self, config: Config) -> Funnel:
        return Funnel(self, self, self, config.retrieval.candidates, config.ranking.ranked)

    def uncounted_funnel(self, config: Config) -> Funnel:
        """Return the funnel of slates that no user sees."""
        return replace(self.funnel(config), reranking=UncountedReranking(self))

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        found = await self.call("candidates", "candidates", requests, k)
        self.metrics.count_candidates(found)
        return found

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        samples = (self.samples,) if self.samples else ()
        return await self.call("ranking", "rank", requests, candidates, k, *samples)

    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates:
        return await self.call("reranking", "rerank", requests, candidates, n)

    async def call(self, stage: str, operation: Operation, *args: Any) -> Any:
        """The stage's answer; raises TimeoutError when its share of the deadline is over."""
        loop = asyncio.get_running_loop()
        started, limit = loop.time(), self.began + BUDGET[stage] * self.deadline_s
        try:
            with trace(stage, SpanKind.CLIENT):
                return await self.breakers[stage].wait(lambda: self.stages.call(stage, operation, *args), limit)
        except BundleNotHeld:
            self.missing.append(stage)
            raise
        finally:
            self.metrics.stage_seconds.labels(stage).observe(loop.time() - started)


@dataclass(frozen=True)
class UncountedReranking:
    """Re-ranking of a run, for slates that no user sees: rules do not count them."""

    run: StageRun

    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates:
        return await self.run.call("reranking", rerank_uncounted, requests, candidates, n)
