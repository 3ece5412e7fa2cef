"""The gateway and its stages in one uvicorn process, without Ray."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from handsell.core.clock import Clock
from handsell.core.paths import Layout
from handsell.events.log import AppendResult, EventLog
from handsell.events.reader import EventReader
from handsell.features.store import open_store
from handsell.serving.graph.gateway import local_stages
from handsell.serving.graph.loaded_bundle import LoadedBundle, Release
from handsell.serving.graph.loading import LIVE, load_charts, open_bundle
from handsell.serving.graph.service import Service
from handsell.serving.graph.users import Users
from handsell.serving.http.api import build_api
from handsell.serving.telemetry.observability import Metrics


class LocalLog:
    """Event log writer in this process."""

    def __init__(self, log: EventLog):
        self._log = log

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult:
        return await asyncio.wrap_future(self._log.append(events))

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult:
        return await asyncio.wrap_future(self._log.append_slates(slates))

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
        return await asyncio.wrap_future(self._log.put_blocks(user_id, creators, tags))


def main(path: str) -> None:
    opened = open_bundle(path, LIVE)
    config, snapshot, metrics = opened.config, opened.snapshot, Metrics()
    log = EventLog(Layout(config.state).event_log)
    users = Users(open_store(config), EventReader(Layout(config.state).event_log), snapshot, config)
    release = Release(opened.manifest.id, snapshot.version, len(snapshot), opened.manifest.created_us)
    clock = Clock.of(config.serving.clock, opened.manifest)
    bundle = LoadedBundle(config, release, snapshot, local_stages(opened), users, load_charts(opened), clock, metrics)
    app = build_api(Service(bundle, LocalLog(log), metrics))
    uvicorn.run(app, host="127.0.0.1", port=config.serving.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1])
