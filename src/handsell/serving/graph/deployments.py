"""The deployments behind the gateway: three stages, scaled separately, and the one writer of the event log.

A stage answers only for bundles that it holds (bundle_watcher.py), so that no answer mixes two. Constructors
raise an error for an invalid config or bundle: Serve then keeps the old replicas and shows the message in
`serve status`. Constructors import their heavy modules themselves, because `serve deploy` imports the classes only to
bind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind
from ray import serve
from ray.serve.handle import DeploymentHandle

from handsell.config import load_config
from handsell.core.logs.request_trace import RequestTrace, set_traces
from handsell.events.store.interface import AppendResult, EventStoreError
from handsell.serving.telemetry.process_telemetry import start_telemetry
from handsell.serving.telemetry.tracing import trace

if TYPE_CHECKING:
    from handsell.serving.graph.event_sink import WriterCall
    from handsell.serving.graph.loading import OpenedBundle
    from handsell.serving.graph.remote import Traces
    from handsell.serving.graph.stages import LocalStages, Operation

# Defaults for `serve run`; deployments/serve/*.yaml states them, with autoscaling, for every deployment.
STAGE: dict[str, Any] = {"max_ongoing_requests": 8, "max_queued_requests": 64, "ray_actor_options": {"num_cpus": 0.2}}
WRITER: dict[str, Any] = {
    "max_ongoing_requests": 256,
    "max_queued_requests": 256,
    "ray_actor_options": {"num_cpus": 0.05},
}
LOCK_WAIT_S = 15.0  # for the former writer to stop, when one replica replaces another


class StageDeployment:
    """Holds a stage's objects of the live bundle and of those before it."""

    stage: str

    def _hold(self, config: str, bundle: str, load: Callable[[OpenedBundle], LocalStages]) -> None:
        from handsell.serving.graph.bundle_watcher import StageBundles, hold_stages

        start_telemetry(load_config(config), self.stage.capitalize())
        self._bundles = StageBundles(config, bundle, hold_stages(load))

    async def call(self, traces: Traces, bundle: str, operation: Operation, *args: Any) -> Any:
        """Run an operation of this deployment's stage for some requests; raises BundleNotHeld."""
        set_traces(RequestTrace(*each) for each in traces)
        name = operation if isinstance(operation, str) else operation.__name__
        with trace(f"{self.stage.capitalize()}.{name}", SpanKind.SERVER):
            return await self._bundles.get(bundle).call(self.stage, operation, *args)

    async def state(self, bundle: str) -> str:
        return self._bundles.state(bundle)

    async def record_replica_metadata(self) -> dict[str, str]:
        """Open this replica's socket for calls and tell Serve its address. Serve calls this after the constructor."""
        from handsell.serving.sockets.stage_listener import open_listener

        self._listener, announced = await open_listener(self.call, STAGE["max_ongoing_requests"])
        return announced


@serve.deployment(name="Candidates", **STAGE)
class CandidatesDeployment(StageDeployment):
    """At most 1000 candidates per request from all retrievers.

    `shards` are the handles of the shards of the index; without them every index is searched here.
    """

    stage = "candidates"

    def __init__(self, config: str, bundle: str, shards: list[DeploymentHandle] | None = None):
        from handsell.serving.graph.stage_loading import load_candidate_stage

        self._shards = shards or []
        load: Callable[[OpenedBundle], LocalStages] = load_candidate_stage
        if shards:
            from handsell.serving.sharding.shard_stages import load_stage_over

            load = load_stage_over(shards)
        self._hold(config, bundle, load)

    async def state(self, bundle: str) -> str:
        """The state of this replica, then that of the shards."""
        from handsell.serving.graph.bundle_watcher import HELD

        state = self._bundles.state(bundle)
        if state != HELD or not self._shards:
            return state
        from handsell.serving.sharding.shard_client import read_shard_states

        return await read_shard_states(bundle, self._shards)


@serve.deployment(name="Ranking", **STAGE)
class RankingDeployment(StageDeployment):
    """The best candidates by the ranker's score; logs sampled feature vectors."""

    stage = "ranking"

    def __init__(self, config: str, bundle: str):
        from handsell.serving.graph.stage_loading import load_ranking_stage

        self._hold(config, bundle, load_ranking_stage)


@serve.deployment(name="Reranking", **STAGE)
class RerankingDeployment(StageDeployment):
    """Eligible, diverse slates with reasons."""

    stage = "reranking"

    def __init__(self, config: str, bundle: str):
        from handsell.serving.graph.stage_loading import load_reranking_stage

        self._hold(config, bundle, load_reranking_stage)


STAGE_DEPLOYMENTS: dict[str, Any] = {
    "candidates": CandidatesDeployment,
    "ranking": RankingDeployment,
    "reranking": RerankingDeployment,
}


@serve.deployment(name="EventLog", num_replicas=1, **WRITER)
class EventLogDeployment:
    """The log's one writer: exactly one replica, on the machine that holds the file."""

    def __init__(self, config: str):
        from handsell.events.store.opening import open_writer
        from handsell.serving.graph.event_sink import LocalSink

        loaded = load_config(config)
        start_telemetry(loaded, "EventLog")
        self._sink = LocalSink(open_writer(loaded, LOCK_WAIT_S))

    async def call(self, method: str, *args: Any) -> AppendResult:
        """Run a method of EventWriter; answers after the commit and raises EventStoreError."""
        return await asyncio.wrap_future(getattr(self._sink.log, method)(*args))

    async def call_group(
        self, calls: Sequence[WriterCall], traces: Traces = ()
    ) -> list[AppendResult | EventStoreError]:
        """Make several calls that may share a commit; returns the result or the failure of each."""
        set_traces(RequestTrace(*each) for each in traces)
        with trace("EventLog.call_group", SpanKind.SERVER):
            return await self._sink.call_group(calls)

    def __del__(self) -> None:
        if hasattr(self, "_sink"):
            self._sink.close()
