"""A shop whose gateway listens on a port of its own in this process, for tests of clients."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import jwt

from gateway_server import run_gateway
from handsell.access.api_key import ApiKey, create_key
from handsell.access.config import AccessConfig
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.service import Service
from serving_service import build_service
from serving_world import World


class ListeningShop:
    """Its address, its keys and the events that it has stored."""

    def __init__(self, url: str, service: Service, log: SqliteWriter):
        self.url, self.service, self._log = url, service, log

    def create_key(self, *scopes: str, kind: str = "server", **more) -> tuple[ApiKey, str]:
        key, text = create_key("shop", kind, scopes, time.time_ns() // 1_000, **more)
        self._log.put_key(key).result()
        self.service.access.follow_keys()
        return key, text

    def list_events(self) -> list[dict]:
        """Return the stored events, in their order."""
        with closing(open_reader(self.service.config)) as reader:
            columns = reader.scan()
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def sign_token(key: ApiKey, secret: str, user_id: str, life_s: float = 60) -> str:
    """Sign a widget's token, as a shop's server does."""
    return jwt.encode({"sub": user_id, "exp": time.time() + life_s}, secret, "HS256", {"kid": key.key_id})


@contextlib.contextmanager
def run_shop(world: World, **access) -> Iterator[ListeningShop]:
    """Serve a world with an empty event store; `access` are settings of AccessConfig."""
    config = world.config.model_copy(update={"access": AccessConfig(**access)})
    path = Layout(config.state).event_log
    for old in path.parent.glob("log.*"):
        old.unlink()
    with SqliteWriter(path) as log:
        service = build_service(replace(world, config=config), LocalSink(log), config=config)
        with run_gateway(service) as url:
            yield ListeningShop(url, service, log)
