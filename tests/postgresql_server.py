"""A PostgreSQL server of the tests' own, in a temporary folder, with data checksums."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from server_programs import report_missing

OWNER = "postgres"  # root may not run a server


class PostgresServer:
    """Starts and stops one server; each database that it creates is empty."""

    def __init__(self, programs: Path, *settings: str):
        self.programs, self.settings = programs, settings
        self.folder = Path(tempfile.mkdtemp(prefix="handsell-postgresql-"))
        self._user = OWNER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen | None = None
        options = ["--auth=trust", f"--username={OWNER}", "--encoding=UTF8", "--no-locale", "--data-checksums"]
        self._run("initdb", *options, "--no-sync", f"--pgdata={self.folder / 'data'}")

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self.programs / program, *arguments], user=self._user, cwd="/", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        settings = [f"unix_socket_directories={self.folder}", "listen_addresses=127.0.0.1", f"port={self.port}"]
        command = [self.programs / "postgres", "-D", self.folder / "data"]
        for setting in (*settings, *self.settings):
            command += ["-c", setting]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, user=self._user, cwd="/", stdout=log, stderr=log)
        for _ in range(600):
            if self._server.poll() is not None:
                break
            if (
                subprocess.run([self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode
                == 0
            ):
                return
            time.sleep(0.05)
        pytest.fail(f"PostgreSQL does not start: {(self.folder / 'log').read_text()}")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash."""
        if self._server is not None:
            self._run("pg_ctl", "stop", f"--pgdata={self.folder / 'data'}", f"--mode={mode}")
            self._server.wait()
            self._server = None

    def find_processes(self) -> list[psutil.Process]:
        """Return the server's processes, those of its connections, too."""
        assert self._server is not None
        own = psutil.Process(self._server.pid)
        return [own, *own.children()]

    def create_database(self) -> str:
        """Create an empty database; returns its URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", OWNER, "--template=template0", name)
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/{name}"

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def find_programs() -> Path:
    """Return the folder of the server's programs. Without one, skip the test, or fail it in CI."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found or debian:
        return debian[-1].parent if debian else Path(str(found)).resolve().parent
    report_missing("PostgreSQL is not installed: apt-get install postgresql")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A running server for all tests of the session; `create_database` gives each test its own."""
    server = PostgresServer(find_programs(), "fsync=off", "full_page_writes=off", "shared_buffers=32MB")
    try:
        server.start()
        yield server
    finally:
        server.remove()
