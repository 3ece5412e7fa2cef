"""A gateway's service in this process, with local stages and a real event log: what `fused` runs, without Ray."""

from __future__ import annotations

import asyncio
import contextlib

import httpx

from api_document import AnswerCheck
from handsell.core.clock import Clock
from handsell.core.paths import Layout
from handsell.events.log import EventLog
from handsell.events.reader import EventReader
from handsell.serving.graph.gateway import local_stages
from handsell.serving.graph.loaded_bundle import LoadedBundle, Release
from handsell.serving.graph.loading import load_charts, open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.users import Users
from handsell.serving.http.api import build_api
from handsell.serving.telemetry.observability import Metrics
from serving_world import World


class LocalLog:
    """The writer in this process."""

    def __init__(self, log: EventLog):
        self.log = log

    async def append(self, events):
        return await asyncio.wrap_future(self.log.append(events))

    async def append_slates(self, slates):
        return await asyncio.wrap_future(self.log.append_slates(slates))

    async def put_blocks(self, user_id, creators, tags):
        return await asyncio.wrap_future(self.log.put_blocks(user_id, creators, tags))


def edition_of(world: World, metrics: Metrics, bundle="live", store=None, config=None, stages=None) -> LoadedBundle:
    opened = open_bundle(str(world.config.source), bundle)
    config = config or opened.config
    return LoadedBundle(
        config,
        Release(opened.manifest.id, opened.snapshot.version, len(opened.snapshot), opened.manifest.created_us),
        opened.snapshot,
        stages or local_stages(opened),
        Users(store or world.store(), EventReader(Layout(config.state).event_log), opened.snapshot, config),
        load_charts(opened),
        Clock.of(config.serving.clock, opened.manifest),
        metrics,
    )


def service_of(world: World, log, **parts) -> Service:
    metrics = Metrics()
    return Service(edition_of(world, metrics, **parts), log, metrics)


@contextlib.asynccontextmanager
async def served(world: World, **parts):
    """(client, service) over a fresh event log."""
    path = Layout(world.config.state).event_log
    for old in path.parent.glob("log.*"):
        old.unlink()
    with EventLog(path) as log:
        service = service_of(world, LocalLog(log), **parts)
        api = build_api(service)
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        hooks = {"response": [AnswerCheck(api.openapi()).later]}
        async with httpx.AsyncClient(transport=transport, base_url="http://shop", event_hooks=hooks) as client:
            yield client, service
        await service.close()
