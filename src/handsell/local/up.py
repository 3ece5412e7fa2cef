"""`make up`: from nothing to a served recommendation, and `make down`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.local import cluster, service, show
from handsell.local.steps import Steps, code_digest

STEPS = 9
AGENT_TRIES = 5


def up(config: Config, topology: str = "graph", console: Console | None = None) -> None:
    """Bring the whole deployment up; a second call skips what is unchanged."""
    console = console or Console()
    layout = Layout(config.state)
    steps = Steps(layout.steps, STEPS, console)
    code = code_digest()

    steps.run("ray", "starting a Ray head on loopback", lambda: _start_ray(config), always=True)
    head = cluster.running(config)
    if head is None:
        raise HandsellError(f"the Ray head ended at once; see {layout.logs / 'ray.log'}")

    def command(name: str) -> Callable[[], str]:
        return lambda: _handsell(config, name, head)

    depends = inputs(config)
    steps.run(
        "data", "reading, checking and numbering events, items and users", command("data"), [depends["data"], code]
    )
    steps.run(
        "features",
        "computing user and item features with Ray",
        command("features"),
        depends["features"],
    )
    steps.run("feast apply", "registering entities, views and services", command("apply"))
    steps.run("materialize", "copying the newest values to the online store", command("materialize"))
    steps.run("train", "submitting the training job", lambda: _train(config, head), depends["train"])
    steps.run(
        "serve", f"deploying the {topology} topology", lambda: service.deploy(config, head, topology), always=True
    )
    steps.run("ready", "waiting for every stage", lambda: service.wait_until_ready(config), always=True)
    steps.run("show", "asking for one user", lambda: show.one_user(config, console), always=True)


def down(config: Config, console: Console | None = None) -> None:
    """Stop the cluster that `up` started, and everything that runs in it."""
    console = console or Console()
    stopped = cluster.stop(config)
    console.print(f"stopped {len(stopped)} processes of {config.name}" if stopped else f"{config.name} was not running")


def _start_ray(config: Config) -> str:
    head = cluster.running(config)
    if head is None:
        head = cluster.start(config)
    return f"jobs and dashboard at {head.dashboard}, pid {head.pid}"


def _handsell(config: Config, command: str, head: cluster.RayHead) -> str:
    """Run `handsell COMMAND CONFIG` in a process of its own; returns its last line."""
    return _run(
        [sys.executable, "-m", "handsell", command, str(config.source)], head.environment, _log(config, command)
    )


def _train(config: Config, head: cluster.RayHead) -> str:
    """A real `ray job submit`: the package is installed, so the job ships no code."""
    ray = str(Path(sys.executable).parent / "ray")
    env = {k: v for k, v in os.environ.items() if k in ("HANDSELL_HOME", "HANDSELL_DATA")}
    runtime = {"env_vars": {**env, **cluster.BASE_ENVIRONMENT}}  # jobs have the token's path from the cluster itself
    command = [
        ray, "job", "submit", "--address", head.dashboard, "--log-style", "record", "--runtime-env-json",
        json.dumps(runtime), "--", sys.executable, "-m", "handsell", "train", str(config.source),
    ]  # fmt: skip
    for _ in range(AGENT_TRIES):
        try:
            return _run(command, head.environment, _log(config, "train"))
        except HandsellError as error:
            if "No available agent" not in str(error):
                raise
            time.sleep(3.0)  # a head that has just started answers before its agent takes jobs
    return _run(command, head.environment, _log(config, "train"))


def _run(command: list[str], env: dict[str, str], log: Path) -> str:
    """Run, show each line that reports progress, keep everything in `log`; raises HandsellError with the end of it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            said = WORKER.sub("", line.rstrip())
            if PROGRESS.match(said) and said not in lines[-5:]:  # Ray forwards some lines twice
                print(f"    {said}", flush=True)
            lines.append(said)
    if process.wait() != 0:
        tail = [line for line in lines if line.strip()][-12:]
        raise HandsellError("\n".join([*tail, f"(everything it printed: {log})"]))
    told = [line for line in lines if line.startswith(RESULT)]
    return told[-1].removeprefix(RESULT).strip() if told else "done"


PROGRESS = re.compile(  # how our jobs begin a line that reports progress
    r"\[\d+/\d+\] |  · |(two_tower|sasrec) epoch |  scored "
)
WORKER = re.compile(r"^(\x1b\[\d+m)?\(\w+ pid=\d+(, ip=[\d.]+)?\)(\x1b\[0m)? ")  # what Ray puts before a worker's line
RESULT = "result:"  # how our commands begin the one line that sums up


def _log(config: Config, name: str) -> Path:
    return Layout(config.state).logs / f"{name}.log"


def inputs(config: Config) -> dict[str, object]:
    """Step → what it depends on beside the steps before it: sections of the config, size and time of source files."""
    features = {"features", "split"}  # which moments of users are written depends on the windows
    trained = {"retrieval", "ranking", "reranking", "split", "surfaces", "gate"}
    files = [[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in _source_files(config)]
    return {
        "data": [config.data.model_dump(mode="json"), config.events.model_dump(mode="json"), files],
        "features": config.model_dump(mode="json", include=features),
        "train": config.model_dump(mode="json", include=trained),
    }


def _source_files(config: Config) -> list[Path]:
    """Every file that the reader would read; none where that cannot be told yet: the step itself says why."""
    from handsell.data.readers.detect import open_reader

    if config.data.download and config.data_path is None:
        return []  # a download is checked by its hash
    try:
        return open_reader(config).files()
    except HandsellError:
        return []
