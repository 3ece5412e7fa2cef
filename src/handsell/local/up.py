"""`make up` and `make down`: everything from source data to a running service on this machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout, has_content
from handsell.core.proxies import bypass_proxies
from handsell.core.tools import start_command
from handsell.doctor.inspection import find_problems
from handsell.doctor.view import print_problems
from handsell.events.store.opening import open_reader
from handsell.features.repository import build_feast_settings, list_definitions
from handsell.jobs.cluster import has_few_events
from handsell.jobs.features.materialization import is_filled
from handsell.jobs.features.steps import list_online_files
from handsell.jobs.step_records import code_digest, digest_files
from handsell.local import cluster, example, service
from handsell.local.bundles import has_live_bundle
from handsell.local.ingress import process as ingress
from handsell.local.online_store import require_online_store
from handsell.local.ownership import claim_state, require_owner
from handsell.local.ports import list_own_pids, require_free_port
from handsell.local.processes.child_process import JSON_LINES, CommandProcess, run_child
from handsell.local.steps import Steps

STEPS = 10
EVENT_BYTES = 50  # about, of a row of events in a source file
SUBMIT_TRIES = 6


def start_everything(config: Config, topology: str = "graph", console: Console | None = None) -> None:
    """Prepare data and features, train, deploy, and show an example; steps whose inputs are unchanged are skipped."""
    console = console or Console()
    claim_state(config)
    require_online_store(config)
    layout = Layout(config.state)
    steps = Steps(layout.steps, STEPS, console)
    code = code_digest()  # a changed version runs all steps again

    inputs = step_inputs(config)
    _require_free_ports(config)
    checked = [inputs["data"], inputs["doctor"], code_digest(without=("cli", "client", "serving", "console"))]
    steps.run(
        "doctor", "checking settings and source data", lambda: _check_deployment(config, console), checked,
        feeds_later=False,
    )  # fmt: skip
    steps.run("ray", "starting a local Ray cluster", lambda: _start_ray(config), always=True)
    head = cluster.find_running(config)
    if head is None:
        raise HandsellError(f"the Ray head process ended right after its start: see {layout.logs / 'ray.log'}")

    with CommandProcess(head.environment) as process:
        command = _choose_commands(config, head, process)
        _finish_erasures(config, command("erase"), console)
        if not _has_small_sources(config):
            cluster.wait_until_started(config, head)
        _prepare_features(config, steps, inputs, code, command)
        deploy = _start_service(config, head, topology)
        train = partial(_train, config, head, command("train"))
        steps.run(
            "train", "training and evaluating a bundle", train, inputs["train"],
            is_there=lambda: has_live_bundle(config),
        )  # fmt: skip
    steps.run("serve", f"deploying the {topology} topology", deploy, always=True)
    steps.run("ready", "waiting until all stages are ready", lambda: _wait_until_ready(config), always=True)
    steps.run(
        "show", "requesting recommendations for one user", lambda: example.show_example(config, console), always=True
    )


def _prepare_features(
    config: Config, steps: Steps, inputs: dict[str, object], code: str, command: Callable[[str], Callable[[], str]]
) -> None:
    """Run the steps from source data to the online store."""
    layout = Layout(config.state)
    steps.run(
        "data", "reading, checking and numbering events, items and users", command("data"), [inputs["data"], code],
        is_there=lambda: has_content(layout.data_meta, layout.interactions, layout.catalog),
    )  # fmt: skip
    steps.run(
        "features", "computing user and item features on Ray", command("features"), inputs["features"],
        is_there=lambda: has_content(layout.features, layout.snapshot),
    )  # fmt: skip
    steps.run(
        "feast apply", "registering entities, views and services", command("apply"),
        [inputs["online store"], inputs["feature repo"]], feeds_later=False,
        is_there=lambda: has_content(layout.feast / "registry.db", *list_online_files(config)),
    )  # fmt: skip
    steps.run(
        "materialize", "copying the newest feature values to the online store", command("materialize"),
        inputs["online store"], feeds_later=False, is_there=lambda: is_filled(config),
    )  # fmt: skip


def _start_service(config: Config, head: cluster.RayHead, topology: str) -> Callable[[], str]:
    """Wait for Ray; return the function that deploys the service, or waits until that is done.

    Before the first bundle it begins at once, in a thread: while the bundle is trained, replicas start and wait for it.
    """
    is_first, needs_ray = not has_live_bundle(config), not has_few_events(config)

    def deploy() -> str:
        if is_first and not needs_ray:
            cluster.wait_until_started(config, head)
        return service.deploy(config, head, topology)

    if not is_first or needs_ray:
        cluster.wait_until_started(config, head)
    if not is_first:
        return deploy
    return ThreadPoolExecutor(1, "deploy").submit(deploy).result


def _wait_until_ready(config: Config) -> str:
    return f"{service.wait_until_ready(config)}; {service.wait_for_console(config)}"


def stop_everything(config: Config, console: Console | None = None) -> None:
    """Stop the local Ray cluster and everything that runs on it."""
    console = console or Console()
    require_owner(config)
    stopped = cluster.stop(config)
    console.print(f"stopped {len(stopped)} processes of {config.name}" if stopped else f"{config.name} was not running")


def _require_free_ports(config: Config) -> None:
    """Raise HandsellError if another program listens on a port of the deployment."""
    head = cluster.find_running(config)
    own = ingress.list_pids(config) | (list_own_pids(head.pid) if head else frozenset())
    require_free_port("serving.port", config.serving.host, config.serving.port, own)
    if head is None:
        cluster.require_free_ports(config)


def _check_deployment(config: Config, console: Console) -> str:
    """Print what the doctor finds, without notes; raises HandsellError if the deployment is not ready to train."""
    found = [problem for problem in find_problems(config, print) if problem.severity != "note"]
    print_problems(found, console)
    errors = sum(problem.severity == "error" for problem in found)
    if errors:
        raise HandsellError(
            f"not ready to train: correct the {errors} error{'s' * (errors > 1)} above; `handsell doctor "
            f"{config.source}` shows more about the data"
        )
    return f"ready to train, {len(found)} warning{'s' * (len(found) != 1)}"


def _finish_erasures(config: Config, run: Callable[[], str], console: Console) -> None:
    """Remove people from the files whose erasure was interrupted; what is still left does not stop the service."""
    try:
        with closing(open_reader(config)) as reader:
            if all(erasure.user_id is None for erasure in reader.read_erasures()):
                return
        console.print(run(), highlight=False)
    except HandsellError as error:
        console.print(f"people are not erased everywhere: {error}", highlight=False)


def _start_ray(config: Config) -> str:
    head, restarted = cluster.find_running(config), ""
    if head is not None and head.settings != cluster.settings_digest(config):
        cluster.stop(config)
        head, restarted = None, "; restarted because [jobs], [serving], the online store or credentials have changed"
    if head is None:
        head = cluster.launch(config)
    return f"Ray's job API at {head.dashboard}, pid {head.pid}{restarted}"


def _has_small_sources(config: Config) -> bool:
    """Return whether the source files look so small that the steps before training do without Ray, while it starts.

    Where that is wrong, the step itself waits for Ray.
    """
    listed = _describe_source_files(config)
    sizes = [size for _, size, _ in listed]
    return bool(sizes) and sum(sizes) <= config.jobs.small_events * EVENT_BYTES


def _choose_commands(config: Config, head: cluster.RayHead, process: CommandProcess) -> Callable[[str], Callable]:
    """Return `command(name)`, whose result runs that handsell command in a child process and returns its outcome.

    On little data all commands run in one process. On much data each has its own, whose memory ends with it.
    """
    is_small = _has_small_sources(config)

    def command(name: str) -> Callable[[], str]:
        def run() -> str:
            arguments, log = (name, str(config.source)), _log_path(config, name)
            if is_small:
                return process.run(arguments, log)
            return run_child([sys.executable, "-m", "handsell", *arguments], head.environment, log)

        return run

    return command


def _train(config: Config, head: cluster.RayHead, run: Callable[[], str]) -> str:
    """Train in a job of `ray job submit`, or by `run`, the command, where such a job would not use Ray's workers.

    Both skip the steps before it that have just run. The package is installed, so the job uploads no code.
    """
    if has_few_events(config):
        return run()
    # the cluster has HANDSELL_HOME and the path of the token; Ray would replace a $NAME in these paths
    runtime = {"env_vars": {**cluster.BASE_ENVIRONMENT, **bypass_proxies(), **JSON_LINES}}
    command = [
        *start_command("ray"), "job", "submit", "--address", head.dashboard, "--log-style", "record",
        "--runtime-env-json", json.dumps(runtime), "--", sys.executable, "-m", "handsell", "train", str(config.source),
    ]  # fmt: skip
    for left in reversed(range(SUBMIT_TRIES)):
        try:
            return run_child(command, head.environment, _log_path(config, "train"))
        except HandsellError as error:
            if "No available agent" not in str(error) or not left:
                raise
            time.sleep(3.0)  # the job API of a new cluster answers before its agent accepts jobs
    raise AssertionError("unreachable")


def _log_path(config: Config, name: str) -> Path:
    return Layout(config.state).logs / f"{name}.log"


def step_inputs(config: Config) -> dict[str, object]:
    """Step → what it depends on besides earlier steps: config sections, and size and time of the source files.

    `online store` is an input of two steps, apply and materialize; `feature repo` is one of apply.
    """
    # the windows decide for which times user rows are written
    features = config.model_dump(mode="json", include={"features", "split"})
    del features["features"]["online_store"]
    trained = {"retrieval", "ranking", "reranking", "tuning", "split", "surfaces", "gate"}
    return {
        "doctor": _doctor_inputs(config),
        "data": [
            config.data.model_dump(mode="json"),
            config.events.model_dump(mode="json", exclude={"store"}),
            config.jobs.partitions,
            _describe_source_files(config),
        ],
        "features": features,
        "feature repo": digest_files(list_definitions(config)),
        "online store": build_feast_settings(config)["online_store"],
        "train": config.model_dump(mode="json", include=trained),
    }


def _doctor_inputs(config: Config) -> list[object]:
    """Return the settings that the doctor reads besides [data] and [events], and the file of rules."""
    read: dict[str, Any] = {
        "split": True,
        "surfaces": True,
        "features": {"item_columns", "user_columns", "user_attributes"},
        "serving": {"host", "port", "clock", "ingress"},
        "jobs": {"gcs_port", "dashboard_port"},
        "ranking": {"without"},
    }
    rules = config.rules_path
    text = rules.read_text(encoding="utf-8", errors="replace") if rules and rules.is_file() else None
    return [config.model_dump(mode="json", include=read), str(rules), text]


def _describe_source_files(config: Config) -> list[list]:
    """Name, size and time of the source files; none if they cannot be listed: the data step then reports the error."""
    from handsell.data.readers.detect import open_reader

    if config.data.download and config.data_path is None:
        return []  # the download is verified by its checksum
    try:
        found = [(str(file), file.stat()) for file in open_reader(config).files()]
    except HandsellError:
        return []
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found]
