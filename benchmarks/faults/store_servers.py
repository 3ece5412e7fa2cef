"""The stores of a deployment without a shared folder, on loopback: PostgreSQL, Redis and S3, which faults act on."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.events.postgresql_server import PostgresqlServer, start_postgresql
from handsell.config import Config, load_config
from handsell.events.store.opening import STORE_VARIABLE as EVENT_STORE
from handsell.features.repository import STORE_VARIABLE as ONLINE_STORE
from handsell.features.store import open_store
from handsell.maintenance.publication import publish_state
from handsell.storage.config import STORAGE_VARIABLE
from handsell.storage.objects import Objects

BUCKET = "handsell"
NOT_COPIED = ("runs", "events", "logs", "steps", "run", "config.path", "online.*")  # of the state folder
START_S = 60.0


@dataclass
class LoopbackServer:
    """A server process that can be killed, stopped and started again."""

    command: list[str]
    port: int
    folder: Path
    process: psutil.Popen | None = None

    def start(self) -> None:
        with (self.folder / "log").open("a") as log:
            self.process = psutil.Popen(self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if time.monotonic() > until or self.process.poll() is not None:
                raise TimeoutError(f"{self.command[0]} did not start: see {self.folder / 'log'}")
            time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@dataclass
class S3Objects:
    """moto, which holds objects in memory: what a real server still has after a restart is uploaded again."""

    server: LoopbackServer
    kept: dict[str, bytes]

    def kill(self) -> None:
        objects = Objects(f"s3://{BUCKET}")
        self.kept = {one.name: found.content for one in objects.list() if (found := objects.read(one.name))}
        self.server.kill()

    def start(self) -> None:
        self.server.start()
        httpx.put(f"http://127.0.0.1:{self.server.port}/{BUCKET}", trust_env=False).raise_for_status()
        objects = Objects(f"s3://{BUCKET}")
        for name, content in self.kept.items():
            objects.write(name, content)


@dataclass(frozen=True)
class StoreServers:
    postgresql: PostgresqlServer
    redis: LoopbackServer
    s3: S3Objects

    def find(self, name: str) -> PostgresqlServer | LoopbackServer | S3Objects:
        servers: dict[str, Any] = {"PostgreSQL": self.postgresql, "Redis": self.redis, "S3": self.s3}
        return servers[name]


@contextlib.contextmanager
def start_stores(folder: Path) -> Iterator[StoreServers]:
    """Start the three servers and name them in the environment of this process; end them afterwards."""
    redis, s3 = _find_program("redis-server"), _find_program("moto_server")
    with start_postgresql(folder) as postgresql, contextlib.ExitStack() as stack:
        servers = []
        for name, command in (("redis", [redis, "--appendonly", "yes", "--save", "", "--port"]), ("s3", [s3, "-p"])):
            home = folder / name
            home.mkdir()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            servers.append(LoopbackServer([*command, str(port)], port, home))
            stack.callback(servers[-1].kill)
        stores = StoreServers(postgresql, servers[0], S3Objects(servers[1], {}))
        os.environ |= {
            EVENT_STORE: postgresql.url, ONLINE_STORE: f"127.0.0.1:{servers[0].port}",
            STORAGE_VARIABLE: f"s3://{BUCKET}/faults", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{servers[1].port}",
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
        }  # fmt: skip
        stores.redis.start()
        stores.s3.start()
        yield stores


def publish_deployment(config: Config, folder: Path) -> Config:
    """Copy a trained deployment into the stores; return its config with the empty state folder of the first node."""
    home = folder / "publisher"
    shutil.copytree(config.state, home / config.name, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (home / config.name / "feast" / "registry.db").unlink(missing_ok=True)  # it has the paths of the original
    os.environ["HANDSELL_HOME"] = str(home)
    copied = load_config(config.source)
    store = open_store(copied)
    store.apply()
    store.materialize()
    publish_state(copied)
    shutil.rmtree(home)
    os.environ["HANDSELL_HOME"] = str(folder / "node-1")
    return load_config(config.source)


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"expected {name} on the PATH: apt-get install redis-server, pipx install 'moto[server]'")
    return found
