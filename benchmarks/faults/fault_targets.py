"""What faults act on: processes of the benchmark's own graph, and its online store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from benchmarks.serving.graph_processes import GraphProcesses, run_in_background
from handsell.core.errors import HandsellError
from handsell.features.repository import build_feast_settings

READ_LOCKS = (123, 5)  # first byte and number of SQLite's read locks in a -shm file; each WAL reader takes one of them


def kill(process: psutil.Process) -> float:
    """Send SIGKILL and return the time (s of the monotonic clock)."""
    process.send_signal(signal.SIGKILL)
    return time.monotonic()


@contextlib.contextmanager
def slow_down(process: psutil.Process, stopped_s: float, running_s: float) -> Iterator[None]:
    """Stop a process for `stopped_s` and run it for `running_s`, in turns, while the block runs."""

    def alternate(end: threading.Event) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not end.is_set():
                process.suspend()
                end.wait(stopped_s)
                process.resume()
                end.wait(running_s)

    try:
        with run_in_background(alternate):
            yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


class OnlineStore:
    """The online store of a running graph: an SQLite file, or a Redis server on this machine."""

    def __init__(self, graph: GraphProcesses):
        settings = build_feast_settings(graph.service.config)["online_store"]
        self._graph, self._path, self._redis = graph, None, None  # type: GraphProcesses, Path | None, psutil.Process | None
        if "path" in settings:
            self._path = Path(settings["path"])
        else:
            address, *self._options = settings["connection_string"].split(",")
            self._host, self._port = address.rsplit(":", 1)
            self._redis = _find_listener(int(self._port))

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """Remove the store while the block runs.

        SQLite: move the file away and kill a gateway, because processes go on reading a file that they have open.
        Redis: end the server (it saves its data if it has save points) and start it again with the same address in the
        same folder; its original command line cannot be read, because Redis replaces its process title.
        """
        if self._redis is not None:
            if self._options:
                raise HandsellError("this fault restarts Redis by host and port alone: use a Redis without options")
            command = ["redis-server", "--bind", self._host, "--port", self._port]
            folder = self._redis.cwd()
            self._redis.terminate()
            self._redis.wait(10)
            try:
                yield
            finally:
                self._redis = psutil.Popen(command, cwd=folder, start_new_session=True)
            return
        assert self._path is not None
        files = [path for end in ("", "-wal", "-shm") if (path := Path(f"{self._path}{end}")).exists()]
        away = [path.replace(path.with_name(f"{path.name}.away")) for path in files]
        try:
            kill(self._graph.find_oldest("Gateway"))
            time.sleep(1)  # until Serve's status reports it
            self._graph.wait_for({"Gateway": 2})
            yield
        finally:
            for end in ("", "-wal", "-shm"):
                Path(f"{self._path}{end}").unlink(missing_ok=True)  # a gateway may have created new ones
            for path, moved in zip(files, away, strict=True):
                moved.replace(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Block all readers. SQLite: hold the read locks in this process. Redis: SIGSTOP."""
        if self._redis is not None:
            self._redis.suspend()
            try:
                yield
            finally:
                self._redis.resume()
            return
        with self._open_lock_file() as file:
            _lock(file)
            yield

    @contextlib.contextmanager
    def slow(self, locked_s: float, free_s: float) -> Iterator[None]:
        """Block all readers for `locked_s` and let them read for `free_s`, in turns."""
        if self._redis is not None:
            with slow_down(self._redis, locked_s, free_s):
                yield
            return

        def alternate(file: int, end: threading.Event) -> None:
            while not end.is_set():
                _lock(file)
                end.wait(locked_s)
                _unlock(file)
                end.wait(free_s)

        with self._open_lock_file() as file, run_in_background(partial(alternate, file)):
            yield

    @contextlib.contextmanager
    def _open_lock_file(self) -> Iterator[int]:
        """Open the -shm file; closing it releases its locks."""
        file = os.open(f"{self._path}-shm", os.O_RDWR)
        try:
            yield file
        finally:
            os.close(file)


def _lock(file: int) -> None:
    first, count = READ_LOCKS
    fcntl.lockf(file, fcntl.LOCK_EX, count, first)


def _unlock(file: int) -> None:
    first, count = READ_LOCKS
    fcntl.lockf(file, fcntl.LOCK_UN, count, first)


def _find_listener(port: int) -> psutil.Process:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            for socket in process.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN and socket.laddr.port == port:
                    return process
    raise HandsellError(f"no process of this user listens on port {port}: start Redis on this machine")
