"""The deployments behind the gateway: three stages, each scaled apart, and the one writer of the event log.

A stage answers only for the bundle it holds, so that one answer never mixes two. Constructors raise what
is wrong with config or bundle: Serve then keeps the old replicas and shows the message in `serve status`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray import serve

from handsell.core.batches import Candidates as CandidateBatch
from handsell.core.batches import Requests, Slates
from handsell.core.config import load_config
from handsell.core.errors import BundleError
from handsell.core.layout import Layout
from handsell.events.log import Appended
from handsell.serving.feature_log import Sample

# Defaults for `serve run`; deployments/serve/*.yaml states them, with autoscaling, for every deployment.
STAGE: dict[str, Any] = {"max_ongoing_requests": 8, "max_queued_requests": 64, "ray_actor_options": {"num_cpus": 0.2}}
WRITER: dict[str, Any] = {
    "max_ongoing_requests": 256,
    "max_queued_requests": 256,
    "ray_actor_options": {"num_cpus": 0.05},
}
LOCK_WAIT_S = 15.0  # for the log's former writer to go, when a replica replaces another


class _Stage:
    def _hold(self, bundle: str) -> None:
        self._bundle = bundle

    def _same(self, bundle: str) -> None:
        if bundle != self._bundle:
            raise BundleError(f"this replica holds bundle {self._bundle}, {bundle} was asked for: deploy again")


@serve.deployment(**STAGE)
class Candidates(_Stage):
    """≤ 1000 candidates per request from every retriever."""

    def __init__(self, config: str, bundle: str):
        from handsell.bundles.assemble import load_candidates
        from handsell.serving.loading import open_bundle
        from handsell.serving.stages import LocalStages

        opened = open_bundle(config, bundle)
        self._stages = LocalStages(load_candidates(opened.path, opened.config, opened.snapshot))
        self._hold(bundle)

    async def candidates(self, bundle: str, requests: Requests, k: int) -> CandidateBatch:
        self._same(bundle)
        return await self._stages.candidates(requests, k)

    async def given(self, bundle: str, requests: Requests, items: np.ndarray) -> CandidateBatch:
        self._same(bundle)
        return await self._stages.given(requests, items)


@serve.deployment(**STAGE)
class Ranking(_Stage):
    """The best candidates by the ranker's score; logs sampled feature vectors."""

    def __init__(self, config: str, bundle: str):
        from handsell.bundles.assemble import load_ranking
        from handsell.serving.loading import open_bundle
        from handsell.serving.stages import LocalStages, open_feature_log

        opened = open_bundle(config, bundle)
        ranking = load_ranking(opened.path, opened.config, opened.snapshot)
        self._stages = LocalStages(ranking_stage=ranking, feature_log=open_feature_log(opened.config, bundle))
        self._hold(bundle)

    async def rank(
        self, bundle: str, requests: Requests, found: CandidateBatch, k: int, samples: Sequence[Sample]
    ) -> CandidateBatch:
        self._same(bundle)
        return await self._stages.rank(requests, found, k, samples)


@serve.deployment(**STAGE)
class Reranking(_Stage):
    """Eligible, varied and explained slates."""

    def __init__(self, config: str, bundle: str):
        from handsell.eligibility.mask import Eligibility
        from handsell.reranking.stage import LocalReranking
        from handsell.serving.loading import open_bundle
        from handsell.serving.stages import LocalStages

        opened = open_bundle(config, bundle)
        eligibility = Eligibility(opened.snapshot, tuple(opened.config.surfaces.values()))
        self._stages = LocalStages(reranking_stage=LocalReranking(opened.snapshot, eligibility, opened.config))
        self._hold(bundle)

    async def rerank(self, bundle: str, requests: Requests, ranked: CandidateBatch, n: int) -> Slates:
        self._same(bundle)
        return await self._stages.rerank(requests, ranked, n)


@serve.deployment(num_replicas=1, **WRITER)
class EventLog:
    """The log's one writer: exactly one replica, on the machine that holds the file."""

    def __init__(self, config: str):
        from handsell.events.log import EventLog as Writer

        self._log = Writer(Layout(load_config(config).state).event_log, lock_wait_s=LOCK_WAIT_S)

    async def append(self, events: Sequence[dict[str, Any]]) -> Appended:
        """Returns after the commit; raises EventLogError."""
        return await asyncio.wrap_future(self._log.append(events))

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> Appended:
        return await asyncio.wrap_future(self._log.append_slates(slates))

    def __del__(self) -> None:
        if hasattr(self, "_log"):
            self._log.close()
