"""The service of a gateway in this process, with local stages and an event log: `fused` without Ray."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import httpx

from api_document import ResponseCheck
from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import LoadedBundle, load_bundle
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http.api import build_api
from handsell.serving.telemetry.observability import Metrics
from serving_world import World


class FailingStages:
    """Stages of the live bundle; those in `failing` raise ConnectionError."""

    def __init__(self, world: World, *failing: str):
        self.inner, self.failing = load_local_stages(open_bundle(str(world.config.source), "live")), failing

    async def call(self, stage, operation, *args):
        if stage in self.failing:
            raise ConnectionError(f"{stage} is unavailable")
        return await self.inner.call(stage, operation, *args)


def load_world_bundle(
    world: World, metrics: Metrics, bundle="live", store=None, config=None, stages=None
) -> LoadedBundle:
    opened = open_bundle(str(world.config.source), bundle)
    opened = replace(opened, config=config or opened.config)
    return load_bundle(opened, stages or load_local_stages(opened), store or world.store(), metrics)


def build_service(world: World, log, **parts) -> Service:
    metrics = Metrics()
    return Service(load_world_bundle(world, metrics, **parts), log, metrics)


@contextlib.asynccontextmanager
async def start_service(world: World, **parts):
    """Start a service with an empty event log and yield (client, service)."""
    path = Layout(world.config.state).event_log
    for old in path.parent.glob("log.*"):
        old.unlink()
    with SqliteWriter(path) as log:
        service = build_service(world, LocalSink(log), **parts)
        api = build_api(service)
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        hooks = {"response": [ResponseCheck(api.openapi()).check_async]}
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", event_hooks=hooks) as client:
            yield client, service
        await service.close()
