"""Append the slates of a job to the event log, through its single writer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import ray
from ray import serve

from handsell.config import Config
from handsell.events.store.opening import open_writer

WRITER = "EventLog"  # the deployment of handsell.serving.graph.deployments that owns the log
APPLICATION = "handsell"  # of deployments/serve/*.yaml
BATCH = 500  # slates in one append
ANSWER_S = 60.0
LOCK_WAIT_S = 60.0  # for other tasks of the job, which take turns if no service runs


def log_slates(config: Config, slates: Sequence[dict[str, Any]]) -> None:
    """Append slates as impressions; they are durable on return, and appending them twice has no effect.

    The writer of a service on this cluster appends them; without one, this process opens the log itself. Raises
    EventStoreError if nothing was stored.
    """
    parts = [slates[begin : begin + BATCH] for begin in range(0, len(slates), BATCH)]
    writer = _find_writer()
    if writer is not None:
        for part in parts:
            writer.call.remote("append_slates", part).result(timeout_s=ANSWER_S)
        return
    with closing(open_writer(config, LOCK_WAIT_S)) as log:
        for part in parts:
            log.append_slates(part).result(ANSWER_S)


def _find_writer() -> Any | None:
    """Return a handle of the running service's writer; None if no service runs on this cluster."""
    if not ray.is_initialized():
        return None
    application = serve.status().applications.get(APPLICATION)
    if application is None or WRITER not in application.deployments:
        return None
    return serve.get_deployment_handle(WRITER, APPLICATION)
