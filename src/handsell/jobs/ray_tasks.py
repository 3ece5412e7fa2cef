"""Map a function over parts of the data with Ray Data, wait for tasks, and report a lack of CPUs.

Ray Data takes half a second to import, which jobs on little data do without: cluster.py imports this when it is needed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cloudpickle
import ray
import ray.data
from ray.data import ExecutionResources
from ray.util.state import list_tasks

from handsell.core.errors import HandsellError, TrainingError
from handsell.jobs.progress import report_update

POLL_S = 5.0  # how often a waiting job checks whether tasks can run
PROGRESS_EVERY_S = 10.0


def map_tasks(function: Callable, arguments: Sequence[tuple], cpus: float, gpus: float, wait_s: float) -> list[Any]:
    """Call function(*args) for each args as a Ray Data task; return the results in order.

    Needs a connected cluster. Raises the first HandsellError of a task, and TrainingError when no task could start for
    `wait_s` seconds.
    """
    silence_ray_data()
    tasks = list(arguments)

    def run_task(row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = function(*tasks[row["place"]])
        except HandsellError as error:
            result = error
        return {"place": row["place"], "result": cloudpickle.dumps(result)}

    results: list[Any] = [None] * len(tasks)
    places = ray.data.from_items([{"place": i} for i in range(len(tasks))], override_num_blocks=len(tasks))
    # where all CPUs are busy, Ray Data asks the autoscaler for another machine even if no task is left for it
    most = ExecutionResources.for_limits(cpu=max(len(tasks) * cpus, 1.0))
    places.context.execution_options.resource_limits = most
    mapped = places.map(run_task, num_cpus=cpus, num_gpus=gpus or None)  # Ray Data spreads tasks over the nodes
    for done, row in enumerate(_iterate(mapped, function.__name__, cpus, wait_s), start=1):
        result = cloudpickle.loads(row["result"])
        if isinstance(result, HandsellError):
            raise result
        results[row["place"]] = result
        _print_progress(function.__name__, done, len(tasks))
    return results


def _iterate(rows: ray.data.Dataset, name: str, cpus: float, wait_s: float) -> Iterator[dict[str, Any]]:
    """Yield rows as they are computed; a second thread waits for them while this one checks that tasks can run."""
    arrived: queue.Queue = queue.Queue()

    def pull() -> None:
        try:
            for row in rows.iter_rows():
                arrived.put(row)
            arrived.put(None)
        except BaseException as error:  # raised in the caller's thread
            arrived.put(error)

    threading.Thread(target=pull, daemon=True, name=f"spread-{name}").start()
    idle_s = 0.0
    while True:
        try:
            row = arrived.get(timeout=POLL_S)
        except queue.Empty:
            free = ray.available_resources().get("CPU", 0.0)
            idle_s = 0.0 if free >= cpus or _has_running_task() else idle_s + POLL_S
            if idle_s >= wait_s:
                raise TrainingError(_describe_shortage(name, cpus, free, wait_s)) from None
            continue
        if row is None:
            return
        if isinstance(row, BaseException):
            raise row
        idle_s = 0.0
        yield row


def get_results(tasks: Sequence[ray.ObjectRef], name: str, *, cpus: float = 1.0, wait_s: float = 120.0) -> list[Any]:
    """Return the results of Ray tasks in order; raise TrainingError when no task could run for `wait_s` seconds."""
    waiting, idle_s = list(tasks), 0.0
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        free = ray.available_resources().get("CPU", 0.0)
        idle_s = 0.0 if ready or free >= cpus or _has_running_task() else idle_s + POLL_S
        if waiting and idle_s >= wait_s:
            raise TrainingError(_describe_shortage(name, cpus, free, wait_s))
    return ray.get(list(tasks))


def _describe_shortage(name: str, cpus: float, free: float, wait_s: float) -> str:
    total = ray.cluster_resources().get("CPU", 0)
    return (
        f"{name}: no task could start for {wait_s:.0f} s: expected {cpus:g} free CPUs, got {free:g} of {total:g}. "
        "Stop another job, or declare more CPUs (jobs.num_cpus)."
    )


def _has_running_task() -> bool:
    """Return whether a task runs in the cluster: then the CPUs are in use, not reserved."""
    try:
        return bool(list_tasks(filters=[("state", "=", "RUNNING")], limit=1))
    except Exception:  # without a dashboard there is no state API: assume that one runs
        return True


_printed_at: dict[str, float] = {}


def _print_progress(name: str, done: int, total: int) -> None:
    """Print at most one line in PROGRESS_EVERY_S seconds; short maps print nothing."""
    now = time.monotonic()
    if done == 1:
        _printed_at[name] = now
    elif done < total and now - _printed_at[name] >= PROGRESS_EVERY_S:
        _printed_at[name] = now
        report_update(f"{name.strip('_').replace('_', ' ')}: {done} of {total} parts")


def silence_ray_data() -> None:
    """Switch off the progress bars and plans of Ray Data; jobs print their own progress."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
