"""Gateways of one deployment that listen on ports of their own, in threads of this process, without a cluster."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from handsell.serving.http.api import build_api


@contextlib.contextmanager
def listen(service) -> Iterator[str]:
    """Serve the API on a free port of this machine; yields its base URL, and ends the server and the service."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_api(service), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
