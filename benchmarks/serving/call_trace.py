"""Trace of calls between deployments: an application whose replicas record when a call passes each point.

The points are methods of Ray Serve 2.60, found by name; another version may need other names.
"""

# no `from __future__ import annotations`: Serve reads the argument's class from the signature of `build`

import functools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.serve import Application

from benchmarks.serving.layouts import TRACE_FOLDER
from handsell.serving.http import app

OPERATIONS = ("candidates", "rank", "rerank")
FLUSH_S = 1.0

_records: list[str] = []


class TracingPath(str):
    """A path that installs the trace in each process that unpickles it, and stays a TracingPath when passed on."""

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return _install_and_restore, (str(self),)


def _install_and_restore(path: str) -> TracingPath:
    install()
    return TracingPath(path)


def build(args: app.AppArgs) -> Application:
    """Build the real application with a TracingPath as the first argument of each deployment."""
    plain = app.bind
    app.bind = lambda deployment, path, *others: plain(deployment, TracingPath(path), *others)
    return app.build(args)


@functools.cache
def install() -> None:
    """Wrap the traced functions in this process, once."""
    from ray.serve._private import replica, replica_result
    from ray.serve._private.request_router import replica_wrapper

    import handsell.serving.graph.remote as remote

    remote.find_token = lambda: None  # every call through Serve, whose parts this measures
    plain = remote.call

    async def call(handle: Any, method: str, *args: Any) -> Any:
        operation = args[2] if method == "call" and len(args) > 2 else None  # after traces and bundle
        if operation not in OPERATIONS:
            return await plain(handle, method, *args)
        record(f"call:{operation}")
        result = await plain(handle, method, *args)
        record("returned")
        return result

    remote.call = call  # type: ignore[assignment]
    sender = replica_wrapper.gRPCReplicaWrapper
    sender.send_request_python = _wrap(sender.send_request_python, "routed", "sent")  # type: ignore[method-assign]
    _wrap_async(replica.Replica, "HandleRequestWithRejection", "arrived", "replied")
    _wrap_async(replica.UserCallableWrapper, "call_user_method", "entered", "done")
    _wrap_async(replica_result.gRPCReplicaResult, "get_rejection_response", None, "accepted")
    path = Path(os.environ[TRACE_FOLDER]) / f"{os.getpid()}.txt"
    threading.Thread(target=_write, args=(path,), daemon=True).start()


def record(point: str) -> None:
    _records.append(f"{time.monotonic_ns()} {point}\n")


def _wrap(function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **named: Any) -> Any:
        record(before)
        try:
            return function(*args, **named)
        finally:
            record(after)

    return traced


def _wrap_async(owner: type, name: str, before: str | None, after: str) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    async def traced(*args: Any, **named: Any) -> Any:
        if before:
            record(before)
        try:
            return await function(*args, **named)
        finally:
            record(after)

    setattr(owner, name, traced)


def _write(path: Path) -> None:
    """Append the records to a file every FLUSH_S seconds."""
    with path.open("a") as out:
        while True:
            time.sleep(FLUSH_S)
            count = len(_records)
            out.write("".join(_records[:count]))
            out.flush()
            del _records[:count]
