"""Keep HAProxy running, with the replicas that Serve lists: `python -m handsell.local.ingress.supervisor …`.

Serve's list comes from the dashboard's API, every two seconds, or more often while a route has no replica. HAProxy
itself notices a replica that ends or stops (see haproxy_config.py). The listening socket belongs to this process: while
HAProxy is started again, connections wait. HAProxy survives this process, and the next supervisor replaces it without
a gap. Both end with the head of the cluster.

Only the standard library is imported: the process shall need little memory.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from urllib.parse import urlsplit

from handsell.local.ingress.haproxy_config import Address, name_backend, render_config
from handsell.local.ingress.runtime_socket import assign, find_pid

PERIOD_S, SHORT_PERIOD_S = 2.0, 0.5  # a call costs 15 ms of processor time, most of it in Serve
LIST_TIMEOUT_S = 10.0
START_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
BACKLOG = 1024  # connections that wait while HAProxy is started again
REPLICA = "SERVE_REPLICA::"  # names of Serve's actors: requests are sent to replicas, not to Serve's own proxy
Routes = dict[str, set[Address]]


def read_routes(body: bytes) -> Routes:
    """Return the replicas by route prefix of an answer of Serve's API."""
    routes: Routes = {}
    for group in json.loads(body)["target_groups"]:
        if group["protocol"] == "HTTP":
            found = {(one["ip"], one["port"]) for one in group["targets"] if one["name"].startswith(REPLICA)}
            routes.setdefault(group["route_prefix"], set()).update(found)
    return routes


class ServeList:
    """Serve's list of replicas, from the dashboard's API with the cluster's token."""

    def __init__(self, dashboard: str, token: Path):
        address = urlsplit(dashboard)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=LIST_TIMEOUT_S)
        self._token = token

    def read(self) -> Routes | None:
        """Return the replicas by route; None while Serve does not tell them."""
        try:
            headers = {"Authorization": f"Bearer {self._token.read_text().strip()}"}
            self._connection.request("GET", "/api/serve/applications/", headers=headers)
            response = self._connection.getresponse()
            body = response.read()
            return read_routes(body) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            self._connection.close()
            return None


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, also while the HAProxy of an earlier supervisor listens there."""
    family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(address)
    listener.listen(BACKLOG)
    return listener


class Supervisor:
    """The HAProxy of a deployment and its replicas."""

    def __init__(self, options: argparse.Namespace):
        self._options, self._socket = options, str(options.socket)
        self._list = ServeList(options.dashboard, options.token)
        self._routes: Routes = {"/": set(), "/console": set()}
        self._child: subprocess.Popen | None = None
        self._pid: int | None = None
        self._is_complete = False
        self._listener = listen(options.host, options.port)

    def run(self) -> None:
        """Keep HAProxy running until the head of the cluster has ended; raises SystemExit if it does not start."""
        head = os.pidfd_open(self._options.head)
        self._routes = self._list.read() or self._routes
        self._start(find_pid(self._socket))
        if self._pid is None:
            raise SystemExit(1)
        while not _wait(head, 0):
            begun = time.monotonic()
            try:
                self._keep_running()
                self._follow()
            except Exception:  # HAProxy goes on with what it knows
                traceback.print_exc()
            period = PERIOD_S if self._is_complete else SHORT_PERIOD_S
            self._sleep(head, max(0.05, period - (time.monotonic() - begun)))

    def stop(self) -> None:
        """End HAProxy."""
        if (pid := find_pid(self._socket) or self._pid) is not None:
            _end_process(pid, signal.SIGTERM)
        Path(self._socket).unlink(missing_ok=True)

    def _keep_running(self) -> None:
        """Start HAProxy if none answers at the socket."""
        if (pid := find_pid(self._socket)) is not None:
            self._pid = pid
            return
        if self._pid is not None:  # it has ended, or hangs and would get half of the connections
            _end_process(self._pid, signal.SIGKILL)
        self._start()

    def _start(self, former: int | None = None) -> None:
        """Start HAProxy with the known replicas; a former one finishes its requests and ends."""
        if self._child is not None:
            self._child.poll()
        listener, path = self._listener.fileno(), self._options.config
        path.write_text(render_config(listener, self._socket, self._routes))
        command = [self._options.haproxy, "-f", str(path), "-db", *(("-sf", str(former)) if former else ())]
        self._child = child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[listener])
        until = time.monotonic() + START_TIMEOUT_S
        while find_pid(self._socket) != child.pid and time.monotonic() < until:
            if child.poll() is not None:
                print(f"HAProxy ended with status {child.returncode}", file=sys.stderr, flush=True)
                return
            time.sleep(0.02)
        self._pid = child.pid

    def _follow(self) -> None:
        """Tell HAProxy which replicas Serve lists; without an answer of Serve it keeps those that it has."""
        listed = self._list.read()
        if listed is None:
            return
        added = listed.keys() - self._routes.keys()
        self._routes = {prefix: listed.get(prefix, set()) for prefix in {*self._routes, *listed}}
        if added and self._pid is not None:
            self._start(self._pid)
        found = [assign(self._socket, name_backend(prefix), replicas) for prefix, replicas in self._routes.items()]
        self._is_complete = all(found)

    def _sleep(self, head: int, seconds: float) -> None:
        """Wait; return at once if HAProxy or the head ends."""
        with contextlib.suppress(OSError):  # HAProxy has ended already
            own = os.pidfd_open(self._pid) if self._pid is not None else None
            try:
                select.select([fd for fd in (head, own) if fd is not None], [], [], seconds)
            finally:
                if own is not None:
                    os.close(own)


def _wait(process: int, seconds: float) -> bool:
    """Return whether the process of a pidfd ends within some seconds."""
    return bool(select.select([process], [], [], seconds)[0])


def _end_process(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        os.kill(pid, how)
        if not _wait(process, STOP_TIMEOUT_S):
            os.kill(pid, signal.SIGKILL)
        os.close(process)


def _end(*_: object) -> None:
    raise SystemExit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in {
        "haproxy": str, "host": str, "port": int, "config": Path, "socket": Path, "dashboard": str, "token": Path,
        "head": int,
    }.items():  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, required=True)
    supervisor = Supervisor(parser.parse_args())
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal of `make up`
    try:
        supervisor.run()
    finally:
        supervisor.stop()


if __name__ == "__main__":
    main()
