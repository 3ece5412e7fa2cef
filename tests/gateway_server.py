"""Gateways that listen on ports of their own, in threads of this process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence

import uvicorn

from handsell.serving.graph.service import Service
from handsell.serving.http.api import Watcher, build_api

ENDING_S = 60.0


@contextlib.contextmanager
def run_gateway(service: Service, watchers: Sequence[Watcher] = ()) -> Iterator[str]:
    """Serve until the end of the block; yields the base URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_api(service, watchers), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(ENDING_S)
        assert not thread.is_alive(), "a request of this gateway was never answered"
