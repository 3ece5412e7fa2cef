"""The Ray cluster of the jobs: connect, and map a function over parts of the data.

Functions import Ray when they use it: a job on little data does without, and `handsell up` only asks for its size.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout, find_socket_folder
from handsell.core.ray_token import PATH, VALUE, create_token

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NO_API_SERVER = "http://127.0.0.1:1"
HEAD_START_S = 10.0  # a head of `handsell up` that is still starting listens within


@contextmanager
def connect(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to the cluster of RAY_ADDRESS, or start a private one for the block.

    `ray job submit` sets the address. Without one (tests, `handsell train` without a cluster), a private cluster is
    started on loopback and stopped at the end. Both need a token.
    """
    import ray
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
    from ray.exceptions import AuthenticationError

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    private: dict[str, Any] = {
        "address": "local",  # never join a cluster that happens to run on this machine
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "runtime_env": {"env_vars": THREADS},  # nodes of a cluster and submitted jobs have their own
    }
    if not address:
        prepare_private_cluster()
    options = {"address": address} if address else private
    if address:
        _wait_for_address(address)
    is_submitted = RAY_JOB_CONFIG_JSON_ENV_VAR in os.environ  # what Ray's processes print belongs into a job's log only
    try:
        ray.init(log_to_driver=is_submitted, logging_level=logging.WARNING, **options)
    except (AuthenticationError, ConnectionError) as error:
        if not address:
            raise
        raise HandsellError(
            f"cannot connect to the cluster at {address} of RAY_ADDRESS ({str(error).splitlines()[0][:200]}): it is "
            'down, or this process lacks its token. `eval "$(handsell env CONFIG)"` exports address and token of the '
            "cluster that `handsell up` started."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _wait_for_address(address: str) -> None:
    """Wait while the head of a cluster is still starting; one that does not come is reported by Ray."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + HEAD_START_S
    while host and port.isdigit() and time.monotonic() < until:
        try:
            socket.create_connection((host, int(port)), timeout=HEAD_START_S).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.2)
        except OSError:  # an address of Ray's own kinds, or no route
            return


@contextmanager
def open_cluster(config: Config, events: int | None = None) -> Iterator[None]:
    """Connect to the cluster for the block; where events are few, `run_tasks` runs its tasks in this process instead.

    `events`: how many there are, by default those of the numbered data. What needs Ray in any case uses `connect`.
    """
    small = has_few_events(config) if events is None else events <= config.jobs.small_events
    before = _in_process.set(small)
    try:
        with nullcontext() if small else connect(config.jobs.num_cpus):
            yield
    finally:
        _in_process.reset(before)


def has_few_events(config: Config) -> bool:
    """Return whether jobs run in one process, as there are few numbered events; False before there are any."""
    try:
        return int(read_json(Layout(config.state).data_meta, "")["events"]) <= config.jobs.small_events
    except (HandsellError, KeyError):
        return False


def is_in_process() -> bool:
    """Return whether `run_tasks` runs its tasks in this process."""
    return _in_process.get()


_in_process: ContextVar[bool] = ContextVar("in_process", default=False)


def prepare_private_cluster() -> None:
    """Restrict the cluster that this process starts next to loopback, with its own token.

    Ray replaces 127.0.0.1 by the machine's address and listens on every interface unless multi-node clusters are
    switched off; it reads that switch at import. It enables token authentication unless RAY_AUTH_MODE says otherwise,
    but stores the token in the home folder, readable by everybody. Ray reads the token once, so all private clusters of
    a process share it.

    A private cluster has no API server. Ray Train and the state API would search this machine for that of another
    cluster, and show it this one's token.
    """
    from ray._private import ray_constants

    os.environ["RAY_API_SERVER_ADDRESS"] = NO_API_SERVER
    os.environ["TMPDIR"] = str(find_socket_folder())  # for sockets of Ray and of Python's multiprocessing
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    if not (os.environ.get(VALUE) or os.environ.get(PATH)):
        os.environ[PATH] = str(create_token(Path(_private_folder().name) / "ray.token"))
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)


@cache
def _private_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="handsell-token-")  # removed when the process ends


def run_tasks(
    function: Callable, arguments: Sequence[tuple], *, cpus: float = 1.0, gpus: float = 0.0, wait_s: float = 120.0
) -> list[Any]:
    """Call function(*args) for each args as a Ray Data task on any node; return the results in order.

    Within `open_cluster` for few events, call it here, one after the other.

    Arguments and results are small (paths, counts); data is exchanged in files. Raises the first HandsellError of a
    task, and TrainingError when no task could start for `wait_s` seconds because the CPUs are reserved: Ray would
    otherwise wait forever.
    """
    if not arguments:
        return []
    if is_in_process():
        return [function(*one) for one in arguments]
    from handsell.jobs.ray_tasks import map_tasks

    with connect():  # otherwise Ray starts a cluster itself, on every interface
        return map_tasks(function, arguments, cpus, gpus, wait_s)
