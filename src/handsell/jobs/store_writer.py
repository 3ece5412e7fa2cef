"""Write to the event store from a job: through the service's writer if it runs, else directly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from handsell.config import Config
from handsell.events.store.interface import AppendResult
from handsell.events.store.opening import has_one_writer, open_writer

WRITER = "EventLog"  # the deployment of handsell.serving.graph.deployments that owns a SQLite file
APPLICATION = "handsell"  # of deployments/serve/*.yaml
ANSWER_S = 60.0
LOCK_WAIT_S = 60.0  # for other tasks of the job, which take turns if no service runs

Write = Callable[..., AppendResult]


@contextmanager
def open_store_writer(config: Config, lock_wait_s: float = LOCK_WAIT_S) -> Iterator[Write]:
    """Yield `write(method, *arguments)`, which calls a method of EventWriter and returns after the commit.

    A SQLite file has one writer: if this process is connected to the cluster of a running service, that writer is used.
    Raises EventStoreError if nothing was stored.
    """
    running = _find_writer() if has_one_writer(config) else None
    if running is not None:
        yield lambda method, *arguments: running.call.remote(method, *arguments).result(timeout_s=ANSWER_S)
        return
    with closing(open_writer(config, lock_wait_s)) as log:
        yield lambda method, *arguments: getattr(log, method)(*arguments).result(ANSWER_S)


def _find_writer() -> Any | None:
    """Return a handle of the running service's writer; None if no service runs on this cluster."""
    import ray

    if not ray.is_initialized():
        return None
    from ray import serve  # takes a second to import

    application = serve.status().applications.get(APPLICATION)
    if application is None or WRITER not in application.deployments:
        return None
    handle = serve.get_deployment_handle(WRITER, APPLICATION)
    if not handle.is_initialized:  # Serve keeps handles, and returns the same one again
        # the cluster's variables let handles use their caller's event loop; a job has none
        handle._init(_run_router_in_separate_loop=True)
    return handle
