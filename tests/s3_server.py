"""An S3 server of the tests' own (moto), which can be killed, stopped and started again with its objects."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from handsell.storage.objects import Objects
from server_programs import report_missing

BUCKET = "shop"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
NUMBERS = itertools.count(1)


class S3Server:
    """Keeps objects in memory; `settings` are environment variables of the server."""

    def __init__(self, **settings: str):
        program = shutil.which("moto_server")
        if program is None:
            report_missing("no moto_server on the PATH: pipx install 'moto[server]'")
        self.program, self.settings = program, settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None
        self._log = Path(tempfile.mkdtemp(prefix="handsell-s3-")) / "log"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a process uses this server."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.address}

    def start(self) -> None:
        command = [self.program, "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.settings})
        for _ in range(300):
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        report_missing(f"moto_server does not start: {self._log.read_text()[-500:]}")

    def create_bucket(self, name: str = BUCKET) -> None:
        httpx.put(f"{self.address}/{name}", trust_env=False).raise_for_status()

    def create_folder(self) -> str:
        """Return the URI of an empty folder."""
        return f"s3://{BUCKET}/tests/{os.getpid()}-{next(NUMBERS)}"

    def kill(self) -> dict[str, bytes]:
        """Kill the server; return its objects by name, which a real one would still have."""
        objects = Objects(f"s3://{BUCKET}")
        kept = {one.name: found.content for one in objects.list() if (found := objects.read(one.name)) is not None}
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        return kept

    def start_again(self, kept: dict[str, bytes]) -> None:
        """Start the server with these objects; it is on the network before it has them, as a recovering one is."""
        self.start()
        self.create_bucket()
        objects = Objects(f"s3://{BUCKET}")
        for name, content in kept.items():
            objects.write(name, content)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._log.parent, ignore_errors=True)


@contextlib.contextmanager
def _run_server() -> Iterator[S3Server]:
    """A running server with one bucket."""
    server = S3Server()
    try:
        server.start()
        server.create_bucket()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server for all tests of the session."""
    with _run_server() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The session's server, which this process uses."""
    _use(s3_server, monkeypatch)
    return s3_server


@pytest.fixture
def own_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server for one test, which may kill it."""
    with _run_server() as server:
        _use(server, monkeypatch)
        yield server


def _use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
