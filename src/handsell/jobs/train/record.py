"""Slates that a job made, on their way to the event log: through its one writer, wherever that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.log import EventLog

WRITER = "EventLog"  # the deployment of handsell.serving.graph.deployments that owns the log
APPLICATION = "handsell"  # of deployments/serve/*.yaml
BATCH = 500  # slates in one append
ANSWER_S = 60.0
LOCK_WAIT_S = 60.0  # for other tasks of the job, which write by turns where no service runs


def recorded(config: Config, slates: Sequence[dict[str, Any]]) -> None:
    """Durable when it returns; sending slates twice is harmless. Raises EventLogError where nothing was stored.

    The writer of a service that runs on this cluster takes them; else the file is opened here.
    """
    parts = [slates[begin : begin + BATCH] for begin in range(0, len(slates), BATCH)]
    writer = _service()
    if writer is not None:
        for part in parts:
            writer.append_slates.remote(part).result(timeout_s=ANSWER_S)
        return
    with EventLog(Layout(config.state).event_log, lock_wait_s=LOCK_WAIT_S) as log:
        for part in parts:
            log.append_slates(part).result(ANSWER_S)


def _service() -> Any | None:
    """A handle of the running service's writer; None where no service runs on this cluster."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        return None
    application = serve.status().applications.get(APPLICATION)
    if application is None or WRITER not in application.deployments:
        return None
    return serve.get_deployment_handle(WRITER, APPLICATION)
