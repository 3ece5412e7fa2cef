"""A PostgreSQL server of its own in a temporary folder, on loopback, with durable commits as in production."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

DEBIAN = Path("/usr/lib/postgresql")
START_S = 30.0


@dataclass
class PostgresqlServer:
    """A server that can be killed and started again."""

    bin: Path
    data: Path
    port: int
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"postgresql://handsell@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server and wait until it accepts connections, also after a recovery."""
        command = [
            str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port),
            "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=50",
        ]  # fmt: skip
        with (self.data.parent / "postgresql.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, user=_find_user(), cwd="/")
        ready = [str(self.bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        until = time.monotonic() + START_S
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > until or self.process.poll() is not None:
                tail = (self.data.parent / "postgresql.log").read_text()[-1_000:]
                raise TimeoutError(f"PostgreSQL did not start within {START_S:.0f} s: {tail}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End all processes of the server at once, as a loss of power does for them."""
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            found = [first, *first.children(recursive=True)]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(found, timeout=START_S)  # they hold the memory that the next server needs
        (self.data / "postmaster.pid").unlink(missing_ok=True)


@contextlib.contextmanager
def start_postgresql(folder: Path) -> Iterator[PostgresqlServer]:
    """Start a server with its data below `folder`, which its user must be able to enter; end it afterwards."""
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        sys.exit(f"expected PostgreSQL in {DEBIAN}: apt-get install postgresql")
    home = folder / "postgresql"
    home.mkdir(parents=True)
    if _find_user():
        shutil.chown(home, "postgres")
        for parent in [folder, *folder.parents]:
            if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = PostgresqlServer(found[-1].parent, home / "data", probe.getsockname()[1])
    initialize = [
        "-D",
        str(server.data),
        "-U",
        "handsell",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--data-checksums",
    ]
    subprocess.run(
        [str(server.bin / "initdb"), *initialize], check=True, stdout=subprocess.DEVNULL, user=_find_user(), cwd="/"
    )
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()


def _find_user() -> str | None:
    """The server refuses to run as root."""
    return "postgres" if os.getuid() == 0 else None
