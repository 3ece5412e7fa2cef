"""A gateway's service in this process, with local stages and a real event log: what `fused` runs, without Ray."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import httpx

from api_document import AnswerCheck
from handsell.core.paths import Layout
from handsell.events.log import EventLog
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loaded_bundle import LoadedBundle, load_bundle
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http.api import build_api
from handsell.serving.telemetry.observability import Metrics
from serving_world import World


class FailingStages:
    """The stages of a world's live bundle; those in `failing` raise."""

    def __init__(self, world: World, *failing: str):
        self.inner, self.failing = load_local_stages(open_bundle(str(world.config.source), "live")), failing

    async def call(self, stage, operation, *args):
        if stage in self.failing:
            raise ConnectionError(f"{stage} is gone")
        return await self.inner.call(stage, operation, *args)


def load_bundle_of(world: World, metrics: Metrics, bundle="live", store=None, config=None, stages=None) -> LoadedBundle:
    opened = open_bundle(str(world.config.source), bundle)
    opened = replace(opened, config=config or opened.config)
    return load_bundle(opened, stages or load_local_stages(opened), store or world.store(), metrics)


def service_of(world: World, log, **parts) -> Service:
    metrics = Metrics()
    return Service(load_bundle_of(world, metrics, **parts), log, metrics)


@contextlib.asynccontextmanager
async def served(world: World, **parts):
    """(client, service) over a fresh event log."""
    path = Layout(world.config.state).event_log
    for old in path.parent.glob("log.*"):
        old.unlink()
    with EventLog(path) as log:
        service = service_of(world, LocalSink(log), **parts)
        api = build_api(service)
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        hooks = {"response": [AnswerCheck(api.openapi()).later]}
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", event_hooks=hooks) as client:
            yield client, service
        await service.close()
