"""A service with the Gorse-compatible API that listens on a port, and a Gorse client that calls it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from gorse import Gorse

from gateway_server import run_gateway
from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.service import Service
from serving_service import build_service
from serving_world import World


@dataclass(frozen=True)
class GorseShop:
    client: Gorse
    service: Service
    log: SqliteWriter
    url: str


@contextlib.contextmanager
def open_gorse_shop(world: World, key: str = "any", **changes) -> Iterator[GorseShop]:
    """Serve the world with `serving.gorse_api`; `changes` are other sections of its config."""
    serving = world.config.serving.model_copy(update={"gorse_api": True})
    config = world.config.model_copy(update={"serving": serving, **changes})
    path = Layout(world.config.state).event_log
    for old in path.parent.glob("log.*"):
        old.unlink()
    log = SqliteWriter(path)  # closed by the service
    service = build_service(world, LocalSink(log), config=config)
    with run_gateway(service) as url:
        yield GorseShop(Gorse(url, key, timeout=20), service, log, url)
