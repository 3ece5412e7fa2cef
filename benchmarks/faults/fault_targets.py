"""The processes and files of one running graph, and what can happen to them. Nothing else on the machine is touched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from benchmarks.serving.layouts import Running
from handsell.core.errors import HandsellError
from handsell.features.repository import feast_settings

STAGES = ("Candidates", "Ranking", "Reranking")
TITLES = {"controller": "ray::ServeController", "proxy": "ray::ProxyActor"}
READ_MARKS = (123, 5)  # first byte and number of the locks in a -shm file that every reader of a WAL takes one of


@dataclass(frozen=True)
class Graph:
    """The running graph by its process titles, as Ray sets them, and by Serve's own status."""

    service: Running

    def processes(self, name: str) -> list[psutil.Process]:
        """Of a deployment, of the controller or of the proxies, among the children of this cluster's nodes."""
        title, found = TITLES.get(name, f"ray::ServeReplica:handsell:{name}"), []
        for process in self.service.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def one(self, name: str) -> psutil.Process:
        """The oldest; raises HandsellError where there is none."""
        found = self.processes(name)
        if not found:
            raise HandsellError(f"no process of {name} of the graph at {self.service.url}: is it running?")
        return found[0]

    def running(self) -> dict[str, int]:
        """Replicas that take calls, by deployment; none of any while the controller does not answer."""
        return {
            name: sum(replica["state"] == "RUNNING" and _lives(replica["pid"]) for replica in about["replicas"])
            for name, about in self._status().items()
        }

    def wanted(self) -> dict[str, int]:
        """Replicas that there are to be, by deployment."""
        return {name: about["target_num_replicas"] for name, about in self._status().items()}

    def _status(self) -> dict[str, dict]:
        url = f"http://127.0.0.1:{self.service.config.jobs.dashboard_port}/api/serve/applications/"
        try:
            applications = httpx.get(url, timeout=3.0).raise_for_status().json()["applications"]
        except (httpx.HTTPError, ValueError, KeyError):
            return {}
        return applications.get("handsell", {}).get("deployments", {})

    def wait_for(self, least: Mapping[str, int], limit_s: float = 180.0) -> None:
        """Until so many replicas take calls; raises TimeoutError."""
        until = time.monotonic() + limit_s
        while any((counts := self.running()).get(name, 0) < count for name, count in least.items()):
            if time.monotonic() > until:
                raise TimeoutError(f"{dict(least)} replicas are expected to run within {limit_s:.0f} s; got {counts}")
            time.sleep(0.5)


def _lives(pid: int | None) -> bool:
    """Serve goes on calling a replica running for a while after its process is gone or stands still."""
    try:
        return pid is not None and psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` runs beside the block, in a thread; it returns when its event is set, as it is at the block's end."""
    end = threading.Event()
    thread = threading.Thread(target=work, args=(end,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def slowed(process: psutil.Process, stopped_s: float, running_s: float) -> Iterator[None]:
    """The process stands still for `stopped_s`, runs for `running_s`, and so on, while the block lasts."""

    def turns(end: threading.Event) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not end.is_set():
                process.suspend()
                end.wait(stopped_s)
                process.resume()
                end.wait(running_s)

    try:
        with meanwhile(turns):
            yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


class OnlineStore:
    """The deployment's online store, taken from it for a while: an SQLite file, or a Redis server on this machine."""

    def __init__(self, graph: Graph):
        settings = feast_settings(graph.service.config)["online_store"]
        self._graph, self._path, self._redis = graph, None, None  # type: Graph, Path | None, psutil.Process | None
        if "path" in settings:
            self._path = Path(settings["path"])
        else:
            address, *self._options = settings["connection_string"].split(",")
            self._host, self._port = address.rsplit(":", 1)
            self._redis = _listening(int(self._port))

    @contextlib.contextmanager
    def gone(self) -> Iterator[None]:
        """SQLite: the file is moved away and a gateway is replaced meanwhile, because an open file is read on.
        Redis: the server is ended, which saves what it holds if it has save points, and started again with its address
        in its folder: its own command it has overwritten with a title."""
        if self._redis is not None:
            if self._options:
                raise HandsellError("a Redis is started again by its address alone: give the drill one without options")
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
            kill(self._graph.one("Gateway"))
            time.sleep(1)  # for Serve's status to say so
            self._graph.wait_for({"Gateway": 2})
            yield
        finally:
            for end in ("", "-wal", "-shm"):
                Path(f"{self._path}{end}").unlink(missing_ok=True)  # what a gateway has made meanwhile
            for path, moved in zip(files, away, strict=True):
                moved.replace(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """SQLite: another process's locks keep every reader out. Redis: the server is stopped (SIGSTOP)."""
        if self._redis is not None:
            self._redis.suspend()
            try:
                yield
            finally:
                self._redis.resume()
            return
        with self._marks() as file:
            _lock(file)
            yield

    @contextlib.contextmanager
    def slow(self, held_s: float, free_s: float) -> Iterator[None]:
        """Locked for `held_s`, free for `free_s`, and so on."""
        if self._redis is not None:
            with slowed(self._redis, held_s, free_s):
                yield
            return

        def turns(file: int, end: threading.Event) -> None:
            while not end.is_set():
                _lock(file)
                end.wait(held_s)
                _unlock(file)
                end.wait(free_s)

        with self._marks() as file, meanwhile(partial(turns, file)):
            yield

    @contextlib.contextmanager
    def _marks(self) -> Iterator[int]:
        """The open -shm file; closing it gives its locks back."""
        file = os.open(f"{self._path}-shm", os.O_RDWR)
        try:
            yield file
        finally:
            os.close(file)


def _lock(file: int) -> None:
    first, count = READ_MARKS
    fcntl.lockf(file, fcntl.LOCK_EX, count, first)


def _unlock(file: int) -> None:
    first, count = READ_MARKS
    fcntl.lockf(file, fcntl.LOCK_UN, count, first)


def _listening(port: int) -> psutil.Process:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            for socket in process.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN and socket.laddr.port == port:
                    return process
    raise HandsellError(f"no process of ours listens on port {port}: the store's faults need its Redis on this machine")


def kill(process: psutil.Process) -> float:
    """`kill -9`; returns the moment (monotonic s)."""
    process.send_signal(signal.SIGKILL)
    return time.monotonic()
