"""The Ray cluster as jobs see it: connect, map parts of the data over the nodes, and never wait in silence."""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import cloudpickle
import ray
import ray.data
from ray._private import ray_constants
from ray.exceptions import AuthenticationError

from handsell.core.errors import HandsellError, TrainingError
from handsell.core.ray_token import PATH, VALUE, create_token
from handsell.jobs.progress import report_update

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
POLL_S = 5.0  # how often a job that has nothing to report looks whether it can ever go on
TELL_EVERY_S = 10.0  # a long map says how far it is


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Use the cluster that this process belongs to, or start one for the time of the block.

    Inside `ray job submit` the address is in the environment. Alone (tests, a quick `handsell train`
    without a cluster) a private one is started on loopback and stopped again. Either way Ray asks for a token.
    """
    _quiet_data()
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    alone: dict[str, Any] = {
        "address": "local",  # never join a cluster that happens to run on this machine
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "runtime_env": {"env_vars": THREADS},  # a cluster's nodes, or the submitted job, bring their own
    }
    if not address:
        prepare_private_cluster()
    options = {"address": address} if address else alone
    try:
        ray.init(log_to_driver=True, logging_level=logging.WARNING, **options)
    except (AuthenticationError, ConnectionError) as error:
        if not address:
            raise
        raise HandsellError(
            f"cannot join the cluster at {address} of RAY_ADDRESS ({str(error).splitlines()[0][:200]}): it is down, or "
            'asks for a token that this process lacks. `eval "$(handsell env CONFIG)"` exports address and token of '
            "the cluster that `make up` started."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def prepare_private_cluster() -> None:
    """Make the cluster that this process is about to start keep to loopback, and ask for a token of its own.

    Ray replaces 127.0.0.1 by the machine's own address, and listens everywhere, unless it is told that other nodes are
    not wanted; it looks for that when it is imported. It turns token mode on by itself unless RAY_AUTH_MODE says
    otherwise, but would keep the token in the home folder, readable by everybody. One token serves all private clusters
    of a process, because Ray reads it once.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    if not (os.environ.get(VALUE) or os.environ.get(PATH)):
        os.environ[PATH] = str(create_token(Path(_private_folder().name) / "ray.token"))
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)


@cache
def _private_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="handsell-token-")  # removed when the process ends


def spread(function: Callable, arguments: Sequence[tuple], *, cpus: float = 1.0, wait_s: float = 120.0) -> list[Any]:
    """function(*args) for each args, mapped by Ray Data over the nodes; results in the order of the arguments.

    Arguments and results are small (paths, counts): the data lies in files. The first HandsellError is
    raised as it is. Raises TrainingError when nothing has run for `wait_s` seconds because the CPUs are
    promised to something else: Ray would otherwise wait for ever without a word.
    """
    if not arguments:
        return []
    given = list(arguments)

    def one(row: dict[str, Any]) -> dict[str, Any]:
        try:
            result = function(*given[row["place"]])
        except HandsellError as error:
            result = error
        return {"place": row["place"], "result": cloudpickle.dumps(result)}

    results: list[Any] = [None] * len(given)
    with connected():  # Ray would start a cluster by itself, on every interface
        places = ray.data.from_items([{"place": i} for i in range(len(given))], override_num_blocks=len(given))
        mapped = places.map(one, num_cpus=cpus)  # Ray Data spreads its tasks over the nodes by default
        for done, row in enumerate(_watched(mapped, function.__name__, cpus, wait_s), start=1):
            result = cloudpickle.loads(row["result"])
            if isinstance(result, HandsellError):
                raise result
            results[row["place"]] = result
            _tell(function.__name__, done, len(given))
    return results


def _watched(rows: ray.data.Dataset, name: str, cpus: float, wait_s: float) -> Iterator[dict[str, Any]]:
    """Rows as they come; a thread pulls them, so that this one can notice when none can come."""
    arrived: queue.Queue = queue.Queue()

    def pull() -> None:
        try:
            for row in rows.iter_rows():
                arrived.put(row)
            arrived.put(None)
        except BaseException as error:  # handed to the caller's thread, whatever it is
            arrived.put(error)

    threading.Thread(target=pull, daemon=True, name=f"spread-{name}").start()
    idle_s = 0.0
    while True:
        try:
            row = arrived.get(timeout=POLL_S)
        except queue.Empty:
            free = ray.available_resources().get("CPU", 0.0)
            idle_s = 0.0 if free >= cpus or _running(name) else idle_s + POLL_S
            if idle_s >= wait_s:
                raise TrainingError(_starved(name, cpus, free, wait_s)) from None
            continue
        if row is None:
            return
        if isinstance(row, BaseException):
            raise row
        idle_s = 0.0
        yield row


def gathered(tasks: Sequence[ray.ObjectRef], name: str, *, cpus: float = 1.0, wait_s: float = 120.0) -> list[Any]:
    """Results of Ray tasks in their order; raises TrainingError when nothing has run for `wait_s` seconds."""
    waiting, idle_s = list(tasks), 0.0
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
        free = ray.available_resources().get("CPU", 0.0)
        idle_s = 0.0 if ready or free >= cpus or _running(name) else idle_s + POLL_S
        if waiting and idle_s >= wait_s:
            raise TrainingError(_starved(name, cpus, free, wait_s))
    return ray.get(list(tasks))


def _starved(name: str, cpus: float, free: float, wait_s: float) -> str:
    total = ray.cluster_resources().get("CPU", 0)
    return (
        f"{name}: nothing could start for {wait_s:.0f} s: {cpus:g} CPUs are needed and {free:g} of {total:g} are free. "
        "Stop another job, or declare more CPUs (jobs.num_cpus)."
    )


def _running(name: str) -> bool:
    """Whether any task is under way in the cluster: then CPUs are busy rather than lost."""
    from ray.util.state import list_tasks

    try:
        return bool(list_tasks(filters=[("state", "=", "RUNNING")], limit=1))
    except Exception:  # no dashboard, no state API: give it the benefit of the doubt
        return True


_told: dict[str, float] = {}


def _tell(name: str, done: int, total: int) -> None:
    """At most one line in TELL_EVERY_S seconds: long maps are seen to move, short ones stay silent."""
    now = time.monotonic()
    if done == 1:
        _told[name] = now
    elif done < total and now - _told[name] >= TELL_EVERY_S:
        _told[name] = now
        report_update(f"{name.strip('_').replace('_', ' ')}: {done} of {total} parts")


def _quiet_data() -> None:
    """Ray Data's own bars and plans are for notebooks: the job tells its progress itself."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
