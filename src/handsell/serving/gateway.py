"""The ingress deployment: HTTP in, the funnel, HTTP out. In the fused topology it holds the stages itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from handsell.core.config import Config
from handsell.core.layout import Layout
from handsell.serving.remote import RemoteLog, RemoteStages
from handsell.serving.stages import StageCalls

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
        from handsell.events.reader import EventReader
        from handsell.serving.clock import Clock
        from handsell.serving.loading import check_features, load_charts, open_bundle
        from handsell.serving.observability import log_as_json
        from handsell.serving.service import Release, Service
        from handsell.serving.users import Users

        log_as_json()
        opened = open_bundle(config, bundle)
        store = open_store(opened.config)
        check_features(opened, store.check_contract)
        calls: StageCalls = RemoteStages(bundle, *stages) if stages else local_stages(opened)
        self._service = Service(
            opened.config,
            Release(bundle, opened.snapshot.version, len(opened.snapshot)),
            opened.snapshot,
            calls,
            Users(store, EventReader(Layout(opened.config.state).event_log), opened.snapshot, opened.config),
            load_charts(opened),
            RemoteLog(log),
            Clock.of(opened.config.serving.clock, opened.manifest),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        from handsell.serving.api import build_api

        return build_api(self._service)


def local_stages(opened: Any) -> StageCalls:
    """All three stages in this process."""
    from handsell.bundles.assemble import load_stages
    from handsell.serving.stages import LocalStages, open_feature_log

    stages = load_stages(opened.path, opened.config, snapshot=opened.snapshot)
    feature_log = open_feature_log(opened.config, opened.manifest.id)
    return LocalStages(stages.candidates, stages.ranking, stages.reranking, feature_log)
