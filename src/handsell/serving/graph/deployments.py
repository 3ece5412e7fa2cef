"""The deployments behind the gateway: three stages, each scaled apart, and the one writer of the event log.

A stage answers only for a bundle it holds (following.py), so that one answer never mixes two. Constructors raise
what is wrong with config or bundle: Serve then keeps the old replicas and shows the message in `serve status`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve

from handsell.config import load_config
from handsell.core.batches import Candidates, Requests, Slates
from handsell.core.paths import Layout
from handsell.events.log import AppendResult
from handsell.serving.telemetry.feature_log import Sample

if TYPE_CHECKING:
    from handsell.serving.graph.loading import OpenedBundle
    from handsell.serving.graph.stages import LocalStages

# Defaults for `serve run`; deployments/serve/*.yaml states them, with autoscaling, for every deployment.
STAGE: dict[str, Any] = {"max_ongoing_requests": 8, "max_queued_requests": 64, "ray_actor_options": {"num_cpus": 0.2}}
WRITER: dict[str, Any] = {
    "max_ongoing_requests": 256,
    "max_queued_requests": 256,
    "ray_actor_options": {"num_cpus": 0.05},
}
LOCK_WAIT_S = 15.0  # for the log's former writer to go, when a replica replaces another


class StageDeployment:
    """Holds the stage's objects of the live bundle and of those before it; `load` makes them of an opened bundle."""

    def _hold(self, config: str, bundle: str, load: Callable[[OpenedBundle], LocalStages]) -> None:
        from handsell.serving.graph.bundle_watcher import StageBundles

        self._holding = StageBundles(config, bundle, load)

    async def state(self, bundle: str) -> str:
        return self._holding.state(bundle)


@serve.deployment(name="Candidates", **STAGE)
class CandidatesDeployment(StageDeployment):
    """≤ 1000 candidates per request from every retriever."""

    def __init__(self, config: str, bundle: str):
        from handsell.bundles.stages import load_candidates
        from handsell.serving.graph.stages import LocalStages

        self._hold(config, bundle, lambda o: LocalStages(load_candidates(o.path, o.config, o.snapshot)))

    async def candidates(self, bundle: str, requests: Requests, k: int) -> Candidates:
        return await self._holding.of(bundle).candidates(requests, k)

    async def given(self, bundle: str, requests: Requests, items: np.ndarray) -> Candidates:
        return await self._holding.of(bundle).given(requests, items)

    async def candidate_story(self, bundle: str, requests: Requests, item: int, k: int) -> Any:
        return await self._holding.of(bundle).candidate_story(requests, item, k)


@serve.deployment(name="Ranking", **STAGE)
class RankingDeployment(StageDeployment):
    """The best candidates by the ranker's score; logs sampled feature vectors."""

    def __init__(self, config: str, bundle: str):
        from handsell.bundles.stages import load_ranking
        from handsell.serving.graph.stages import LocalStages, open_feature_log

        def load(opened: OpenedBundle) -> LocalStages:
            ranking = load_ranking(opened.path, opened.config, opened.snapshot)
            return LocalStages(ranking_stage=ranking, feature_log=open_feature_log(opened.config, opened.manifest.id))

        self._hold(config, bundle, load)

    async def rank(
        self, bundle: str, requests: Requests, found: Candidates, k: int, samples: Sequence[Sample]
    ) -> Candidates:
        return await self._holding.of(bundle).rank(requests, found, k, samples)

    async def ranking_story(self, bundle: str, requests: Requests, found: Candidates, item: int, k: int) -> Any:
        return await self._holding.of(bundle).ranking_story(requests, found, item, k)


@serve.deployment(name="Reranking", **STAGE)
class RerankingDeployment(StageDeployment):
    """Eligible, varied and explained slates."""

    def __init__(self, config: str, bundle: str):
        from handsell.serving.graph.stages import LocalStages, ruled_reranking

        self._hold(config, bundle, lambda o: LocalStages(reranking_stage=ruled_reranking(o.snapshot, o.config)))

    async def rerank(self, bundle: str, requests: Requests, ranked: Candidates, n: int) -> Slates:
        return await self._holding.of(bundle).rerank(requests, ranked, n)

    async def reranking_story(self, bundle: str, requests: Requests, ranked: Candidates, item: int) -> Any:
        return await self._holding.of(bundle).reranking_story(requests, ranked, item)


@serve.deployment(name="EventLog", num_replicas=1, **WRITER)
class EventLogDeployment:
    """The log's one writer: exactly one replica, on the machine that holds the file."""

    def __init__(self, config: str):
        from handsell.events.log import EventLog

        self._log = EventLog(Layout(load_config(config).state).event_log, lock_wait_s=LOCK_WAIT_S)

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult:
        """Returns after the commit; raises EventLogError."""
        return await asyncio.wrap_future(self._log.append(events))

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult:
        return await asyncio.wrap_future(self._log.append_slates(slates))

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
        return await asyncio.wrap_future(self._log.put_blocks(user_id, creators, tags))

    def __del__(self) -> None:
        if hasattr(self, "_log"):
            self._log.close()
