"""The ingress deployment: HTTP in, the funnel, HTTP out. In the fused topology it holds the stages itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.serving.graph.remote import RemoteLog, RemoteStages
from handsell.serving.graph.stages import StageCalls

if TYPE_CHECKING:
    from handsell.serving.graph.loaded_bundle import LoadedBundle

OpenStore = Callable[[Config], Any]


def feast_store(config: Config) -> Any:
    """The deployment's feature store (`import feast` takes seconds: only gateways pay)."""
    from handsell.features.store import open_store

    return open_store(config)


@serve.deployment(max_ongoing_requests=256, max_queued_requests=256, ray_actor_options={"num_cpus": 0.2})
@serve.ingress()
class Gateway:
    """`stages` are the handles of candidates, ranking and re-ranking; without them they are loaded here."""

    def __init__(
        self,
        config: str,
        bundle: str,
        log: DeploymentHandle,
        stages: tuple[DeploymentHandle, DeploymentHandle, DeploymentHandle] | None = None,
        open_store: OpenStore = feast_store,
    ):
        from handsell.serving.graph.loading import LIVE
        from handsell.serving.graph.service import Service
        from handsell.serving.telemetry.observability import Metrics, log_as_json

        log_as_json()
        self._config, self._stages, self._open_store = config, stages, open_store
        self._follows, self._metrics = bundle == LIVE, Metrics()
        self._service = Service(self._edition(bundle), RemoteLog(log), self._metrics)

    def _edition(self, bundle: str) -> LoadedBundle:
        """Everything of one bundle, loaded and checked; raises HandsellError (BundleError, mostly)."""
        from handsell.core.clock import Clock
        from handsell.events.reader import EventReader
        from handsell.serving.graph.loaded_bundle import LoadedBundle, Release
        from handsell.serving.graph.loading import check_features, load_charts, open_bundle
        from handsell.serving.graph.users import Users

        opened = open_bundle(self._config, bundle)
        config, snapshot, bundle = opened.config, opened.snapshot, opened.manifest.id
        store = self._open_store(config)
        check_features(opened, store.check_contract)
        calls: StageCalls = RemoteStages(bundle, *self._stages) if self._stages else local_stages(opened)
        users = Users(store, EventReader(Layout(config.state).event_log), snapshot, config)
        release = Release(bundle, snapshot.version, len(snapshot), opened.manifest.created_us)
        clock = Clock.of(config.serving.clock, opened.manifest)
        return LoadedBundle(config, release, snapshot, calls, users, load_charts(opened), clock, self._metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from handsell.bundles.store import BundleStore
        from handsell.serving.graph.bundle_watcher import Follower
        from handsell.serving.http.api import build_api

        store = BundleStore(Layout(self._service.config.state).bundles)
        return build_api(self._service, Follower(self._service, store, self._edition) if self._follows else None)


def local_stages(opened: Any) -> StageCalls:
    """All three stages in this process."""
    from handsell.bundles.stages import load_stages
    from handsell.serving.graph.stages import LocalStages, open_feature_log, ruled_reranking
    from handsell.serving.graph.warm_up import warm_up

    stages = load_stages(opened.path, opened.config, snapshot=opened.snapshot)
    feature_log = open_feature_log(opened.config, opened.manifest.id)
    reranking = ruled_reranking(opened.snapshot, opened.config)
    return warm_up(LocalStages(stages.candidates, stages.ranking, reranking, feature_log), opened)
