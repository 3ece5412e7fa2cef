"""The ingress deployment: HTTP in, the funnel, HTTP out. In the fused topology it holds the stages itself.

Methods import heavy modules themselves: `serve deploy` imports this class only to bind it, and importing FastAPI and
Feast takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from handsell.config import Config, load_config

if TYPE_CHECKING:
    from handsell.serving.graph.loaded_bundle import LoadedBundle
    from handsell.serving.graph.stages import StageClient

OpenStore = Callable[[Config], Any]


def feast_store(config: Config) -> Any:
    """The deployment's feature store."""
    from handsell.features.store import open_online_store

    return open_online_store(config)


def _name_replica() -> str:
    """Serve's id of this replica; empty outside of Serve."""
    try:
        return serve.get_replica_context().replica_id.unique_id
    except RayServeException:
        return ""


@serve.deployment(max_ongoing_requests=256, max_queued_requests=256, ray_actor_options={"num_cpus": 0.2})
@serve.ingress()
class Gateway:
    """`stages` are the handles of candidates, ranking and re-ranking; without them they are loaded here.

    `log` is the handle of the one writer of a SQLite event store; the gateway writes to PostgreSQL itself.
    """

    def __init__(
        self,
        config: str,
        bundle: str,
        log: DeploymentHandle | None,
        stages: dict[str, DeploymentHandle] | None = None,
        open_store: OpenStore = feast_store,
        processor: DeploymentHandle | None = None,
        guard: DeploymentHandle | None = None,
    ):
        from handsell.events.store.opening import has_one_writer, open_writer
        from handsell.serving.graph.event_sink import EventSink, LocalSink, RemoteSink
        from handsell.serving.graph.loading import LIVE
        from handsell.serving.graph.remote import open_channel
        from handsell.serving.graph.service import Service
        from handsell.serving.telemetry.observability import Metrics
        from handsell.serving.telemetry.process_telemetry import start_telemetry

        start_telemetry(load_config(config), "Gateway")
        self._config, self._open_store = config, open_store
        self._follows_live, self._metrics = bundle == LIVE, Metrics(_name_replica())
        self._channels = {
            stage: open_channel(handle, load_config(config), lambda way: self._metrics.stage_calls.labels(way).inc())
            for stage, handle in (stages or {}).items()
        }
        loaded = self._load(bundle)
        if log is not None and has_one_writer(loaded.config):
            sink: EventSink = RemoteSink(log)
        else:
            sink = LocalSink(open_writer(loaded.config))
        self._service = Service(loaded, sink, self._metrics)
        self._processor, self._guard = processor, guard

    def _load(self, bundle: str) -> LoadedBundle:
        """Load and check everything of one bundle; raises HandsellError, mostly BundleError."""
        from handsell.serving.graph.loaded_bundle import load_bundle
        from handsell.serving.graph.loading import check_features, open_first_bundle
        from handsell.serving.graph.remote import RemoteStages
        from handsell.serving.graph.stage_loading import load_local_stages

        opened = open_first_bundle(self._config, bundle)
        store = self._open_store(opened.config)
        check_features(opened, store.check_contract)
        stages: StageClient = (
            RemoteStages(opened.manifest.id, self._channels) if self._channels else load_local_stages(opened)
        )
        return load_bundle(opened, stages, store, self._metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from handsell.bundles.opening import open_bundles
        from handsell.experiments.state import open_states
        from handsell.serving.graph.bundle_watcher import BundleWatcher
        from handsell.serving.graph.remote import call
        from handsell.serving.guard_rails.arm_watcher import ArmWatcher
        from handsell.serving.guard_rails.reporter import OutcomeReporter
        from handsell.serving.http.api import Watcher, build_api
        from handsell.serving.stream.likes_watcher import LikesWatcher

        config = self._service.config
        load = self._load if self._follows_live else None
        watchers: list[Watcher] = [ArmWatcher(self._service, open_states(config, keeps_last=True), load)]
        if self._follows_live:
            watchers.append(BundleWatcher(self._service, open_bundles(config, keeps_last=True), self._load))
        if (processor := self._processor) is not None:
            watchers.append(LikesWatcher(self._service, lambda known: call(processor, "recent_likes", known)))
        if (guard := self._guard) is not None:
            watchers.append(OutcomeReporter(self._service, lambda *report: call(guard, "report", *report)))
        return build_api(self._service, watchers)
