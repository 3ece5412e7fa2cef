"""The Ray cluster as jobs see it: connect, spread tasks over nodes, and never wait in silence."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from handsell.core.errors import TrainingError

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Use the cluster that this process belongs to, or start one for the time of the block.

    Inside `ray job submit` the address is in the environment. Alone (tests, a quick `handsell train`
    without a cluster) a private one is started on loopback and stopped again.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": num_cpus, "include_dashboard": False}
    ray.init(log_to_driver=True, logging_level=logging.WARNING, runtime_env={"env_vars": THREADS}, **options)
    try:
        yield
    finally:
        ray.shutdown()


def spread(function: Callable, arguments: Sequence[tuple], *, cpus: float = 1.0, wait_s: float = 120.0) -> list[Any]:
    """Run function(*args) for each args as Ray tasks spread over the nodes; results in order.

    Raises TrainingError when no task has been placed for `wait_s` seconds: a cluster whose CPUs are all
    promised to something else would otherwise wait for ever without a word.
    """
    if not arguments:
        return []
    task = ray.remote(function).options(num_cpus=cpus, scheduling_strategy="SPREAD", max_retries=2)
    waiting = [task.remote(*args) for args in arguments]
    pending, idle_s = list(waiting), 0.0
    while pending:
        done, pending = ray.wait(pending, num_returns=len(pending), timeout=5.0, fetch_local=False)
        free = ray.available_resources().get("CPU", 0.0)
        idle_s = 0.0 if done or free >= cpus or _running(function) else idle_s + 5.0
        if idle_s >= wait_s:
            raise TrainingError(
                f"{function.__name__}: no task could start for {wait_s:.0f} s: {cpus:g} CPUs are needed and "
                f"{free:g} of {ray.cluster_resources().get('CPU', 0):g} are free. Stop another job, or declare more "
                "CPUs (jobs.num_cpus)."
            )
    return ray.get(waiting)


def _running(function: Callable) -> bool:
    """Whether a task of that name is under way somewhere in the cluster."""
    from ray.util.state import list_tasks

    try:
        return bool(list_tasks(filters=[("name", "=", function.__name__), ("state", "=", "RUNNING")], limit=1))
    except Exception:  # no dashboard, no state API: then give it the benefit of the doubt
        return True
