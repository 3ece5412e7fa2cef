"""Processes and replicas of one running serving graph."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.serving.layouts import RunningService
from handsell.core.errors import HandsellError
from handsell.local import cluster

TITLES = {"controller": ("ray::ServeController",), "proxy": ("haproxy", "ray::ProxyActor")}  # the first that runs


@dataclass(frozen=True)
class GraphProcesses:
    """Processes by the titles that Ray gives them, and replicas by Serve's status."""

    service: RunningService

    def find(self, name: str) -> list[psutil.Process]:
        """Processes of a deployment, of the `controller` or of the `proxy`, oldest first."""
        titles = TITLES.get(name, (f"ray::ServeReplica:handsell:{name}",))
        return next((found for title in titles if (found := self._find_titled(title))), [])

    def _find_titled(self, title: str) -> list[psutil.Process]:
        found = []
        for process in self.service.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == title or " ".join(process.cmdline()).startswith(title):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def find_oldest(self, name: str) -> psutil.Process:
        """Return the oldest process of that name; raises HandsellError where there is none."""
        found = self.find(name)
        if not found:
            raise HandsellError(f"no process of {name} of the graph at {self.service.url}: is it running?")
        return found[0]

    def count_running(self) -> dict[str, int]:
        """Replicas that take calls, by deployment; empty while the controller does not answer."""
        return {
            name: sum(replica["state"] == "RUNNING" and _is_running(replica["pid"]) for replica in about["replicas"])
            for name, about in self._status().items()
        }

    def count_targets(self) -> dict[str, int]:
        """Replicas that Serve wants to run, by deployment."""
        return {name: about["target_num_replicas"] for name, about in self._status().items()}

    def _status(self) -> dict[str, dict]:
        head = cluster.find_running(self.service.config)
        if head is None:
            return {}
        url = f"{head.dashboard}/api/serve/applications/"
        try:
            answer = httpx.get(url, headers=head.headers, timeout=3.0, trust_env=False).raise_for_status()
            applications = answer.json()["applications"]
        except (httpx.HTTPError, ValueError, KeyError):
            return {}
        return applications.get("handsell", {}).get("deployments", {})

    def wait_for(self, min_replicas: Mapping[str, int], limit_s: float = 180.0) -> None:
        """Wait until that many replicas take calls; raises TimeoutError."""
        until = time.monotonic() + limit_s
        while any((counts := self.count_running()).get(name, 0) < count for name, count in min_replicas.items()):
            if time.monotonic() > until:
                raise TimeoutError(f"expected {dict(min_replicas)} replicas within {limit_s:.0f} s, got {counts}")
            time.sleep(0.5)

    @contextlib.contextmanager
    def watch(self, observe: Callable[[dict[str, int]], None], every_s: float = 0.5) -> Iterator[None]:
        """Call `observe` with `count_running()` again and again while the block runs."""

        def poll(end: threading.Event) -> None:
            while not end.wait(every_s):
                observe(self.count_running())

        with run_in_background(poll):
            yield


def _is_running(pid: int | None) -> bool:
    """Serve reports a replica as RUNNING for a while after its process has ended or was stopped: check the process."""
    try:
        return pid is not None and psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def run_in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in a thread while the block runs; `work` must return when its event is set, at the block's end."""
    end = threading.Event()
    thread = threading.Thread(target=work, args=(end,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
