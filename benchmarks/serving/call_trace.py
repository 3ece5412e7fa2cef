"""Marks of when a call between deployments passes which point, in the replicas of an application that `hops` measures.

Points of Ray Serve are found by the names of its 2.60: another version may want others here.
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

from benchmarks.serving.layouts import MARKS
from handsell.serving.http import app

METHODS = ("candidates", "rank", "rerank")
EVERY_S = 1.0

_marks: list[str] = []


class Marked(str):
    """A path whose arrival in another process installs the marks there. It stays one, as Serve hands it on."""

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return arrived, (str(self),)


def arrived(path: str) -> Marked:
    install()
    return Marked(path)


def build(args: app.AppArgs) -> Application:
    """The real application; the first argument of each of its deployments is a path."""
    plain = app.bind
    app.bind = lambda deployment, path, *others: plain(deployment, Marked(path), *others)
    return app.build(args)


@functools.cache
def install() -> None:
    """Wrap the points in this process, once."""
    from ray.serve._private import replica, replica_result
    from ray.serve._private.request_router import replica_wrapper

    import handsell.serving.graph.remote as remote

    plain = remote.call

    async def call(handle: Any, method: str, *args: Any) -> Any:
        if method not in METHODS:
            return await plain(handle, method, *args)
        mark(f"call:{method}")
        answer = await plain(handle, method, *args)
        mark("answered")
        return answer

    remote.call = call  # type: ignore[assignment]
    sender = replica_wrapper.gRPCReplicaWrapper
    sender.send_request_python = _around(sender.send_request_python, "routed", "sent")
    _around_async(replica.Replica, "HandleRequestWithRejection", "arrived", "replied")
    _around_async(replica.UserCallableWrapper, "call_user_method", "entered", "done")
    _around_async(replica_result.gRPCReplicaResult, "get_rejection_response", None, "accepted")
    path = Path(os.environ[MARKS]) / f"{os.getpid()}.txt"
    threading.Thread(target=_write, args=(path,), daemon=True).start()


def mark(point: str) -> None:
    _marks.append(f"{time.monotonic_ns()} {point}\n")


def _around(function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def marked(*args: Any, **named: Any) -> Any:
        mark(before)
        try:
            return function(*args, **named)
        finally:
            mark(after)

    return marked


def _around_async(owner: type, name: str, before: str | None, after: str) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    async def marked(*args: Any, **named: Any) -> Any:
        if before:
            mark(before)
        try:
            return await function(*args, **named)
        finally:
            mark(after)

    setattr(owner, name, marked)


def _write(path: Path) -> None:
    """Lines are made at once when they are complete; what comes meanwhile waits for the next turn."""
    with path.open("a") as out:
        while True:
            time.sleep(EVERY_S)
            taken = len(_marks)
            out.write("".join(_marks[:taken]))
            out.flush()
            del _marks[:taken]
