"""The console in this process, on a small deployment: for tests, and to look at it.

python tests/console_app.py [PORT] [--keys]         a small shop, and its console at http://127.0.0.1:PORT/console
python tests/console_app.py PORT --config TOML      the console of a deployment whose service runs
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from gateway_server import run_gateway
from handsell.access.api_key import create_key
from handsell.access.audit_entry import AuditEntry
from handsell.access.config import AccessConfig
from handsell.config import Config, load_config
from handsell.console.app import build_console
from handsell.console.page import ConsolePage
from handsell.console.pages.registry import PAGES
from handsell.console.visit import ConsoleContext
from handsell.core.paths import Layout
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.service import Service
from handsell.serving.http.api import build_api
from listening_shop import ListeningShop
from serving_service import build_service
from serving_world import World, write_world

CSRF = re.compile(r'"X-CSRF-Token": "([^"]+)"')


@dataclass
class ConsoleVisitor:
    """A browser without JavaScript: keeps cookies, and sends the session's token with each form."""

    http: httpx.AsyncClient
    service: Service
    log: SqliteWriter
    audit: list[AuditEntry]
    context: ConsoleContext
    csrf: str = ""

    async def get(self, path: str, **parts: Any) -> httpx.Response:
        """Get a path below /console, following redirects, and remember the token of the page."""
        response = await self.http.get(f"/console{path}", follow_redirects=True, **parts)
        if found := CSRF.search(response.text):
            self.csrf = found[1]
        return response

    async def post(self, path: str, partial: bool = False, **fields: str) -> httpx.Response:
        """Send a form; `partial` as htmx does."""
        headers = {"HX-Request": "true"} if partial else {}
        form = {"csrf": self.csrf, **fields}
        return await self.http.post(f"/console{path}", data=form, headers=headers, follow_redirects=True)

    async def switch_edit(self) -> None:
        await self.get("/")
        await self.post("/edit", edit="on")

    def create_key(self, *scopes: str) -> str:
        """Store a key and return its text; the gateway knows it at once."""
        key, text = create_key("analyst", "server", scopes, time.time_ns() // 1_000)
        self.log.put_key(key).result()
        self.service.access.follow_keys()
        return text

    async def sign_in(self, *scopes: str) -> httpx.Response:
        response = await self.http.post(
            "/console/signin", data={"key": self.create_key(*scopes)}, follow_redirects=True
        )
        if found := CSRF.search(response.text):
            self.csrf = found[1]
        return response


@contextlib.asynccontextmanager
async def open_console(
    world: World, *, keys: str = "off", pages: Sequence[ConsolePage] = PAGES, **parts: Any
) -> AsyncIterator[ConsoleVisitor]:
    """Yield a visitor of a world's console, with an empty event store; nothing listens. `parts` go to build_service."""
    config = world.config.model_copy(update={"access": AccessConfig(keys=keys)})
    with _open_log(config) as log:
        service = build_service(replace(world, config=config), LocalSink(log), config=config, **parts)
        audit: list[AuditEntry] = []
        to_service = httpx.ASGITransport(build_api(service), raise_app_exceptions=False)
        console = build_console(config, audit.append, pages=pages, transport=to_service)
        # as Serve passes requests on: with the whole path
        transport = httpx.ASGITransport(console, raise_app_exceptions=False, root_path="/console")
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
            yield ConsoleVisitor(http, service, log, audit, console.state.context)
        await console.state.context.commands.close()
        await service.close()


@contextlib.contextmanager
def run_console(world: World, *, keys: str = "off", port: int = 0) -> Iterator[tuple[str, ListeningShop]]:
    """Serve a world's console and API on ports of their own; yields the console's address, for a real browser."""
    config = world.config.model_copy(update={"access": AccessConfig(keys=keys)})
    with _open_log(config) as log:
        service = build_service(replace(world, config=config), LocalSink(log), config=config)
        with run_gateway(service) as url:
            section = config.console.model_copy(update={"service_url": url})
            seen = config.model_copy(update={"console": section})
            with listen(build_console(seen, lambda entry: log.append_audit([entry]).result()), port) as address:
                yield address, ListeningShop(url, service, log)


@contextlib.contextmanager
def listen(console: Starlette, port: int = 0) -> Iterator[str]:
    """Serve a console until the end of the block; yields its address."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    app = Starlette(routes=[Mount("/console", console)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/console"
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def _open_log(config: Config) -> Iterator[SqliteWriter]:
    path = Layout(config.state).event_log
    for old in path.parent.glob("log.*"):
        old.unlink()
    with SqliteWriter(path) as log:
        yield log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--keys", action="store_true", help="require keys, and print one with every scope")
    parser.add_argument("--config", type=Path, help="a deployment whose service runs")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if given.config:
            console = build_console(load_config(given.config), lambda entry: print(entry, file=sys.stderr))
            address = stack.enter_context(listen(console, given.port))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            keys = "required" if given.keys else "off"
            world = write_world(Path(folder))
            address, shop = stack.enter_context(run_console(world, keys=keys, port=given.port))
            if given.keys:
                print("key:", shop.create_key("admin")[1])
        print(address, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(asyncio.Event().wait())


if __name__ == "__main__":
    main()
