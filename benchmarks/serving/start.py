"""Seconds until a new pod serves, part by part, without Kubernetes.

    make up && make down && python -m benchmarks start
    python -m benchmarks start --parts processes        without the actors

Processes: CPU seconds of fresh interpreters, the least of `--repeats`. `ray health-check` runs before a worker starts,
in a container that KubeRay limits to 0.2 CPUs; the image has a command `ray` of its own. "without byte code" is what a
read-only file system costs where the image brings none. "with scikit-learn" is how xgboost imports by itself.
Actors: seconds until an actor answers, in a Ray of one node.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError

RAY_COMMAND = Path(__file__).parents[2] / "deployments" / "docker" / "ray_command.py"
INIT_CPUS = 0.2  # the limit of KubeRay's container wait-gcs-ready
STEPS = "import runpy, sys; sys.argv[1:] = {!r}; runpy.run_module({!r}, run_name='__main__')"
REPLICA = "benchmarks.serving.replica_steps"
STAGES = ("candidate", "ranking", "reranking", "gateway")
WAITING_S = 12.0  # until a raylet's waiting processes are there: one per CPU, and another for each that is taken


def run_process(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float, str]:
    """CPU s, elapsed s and output of a process; raises HandsellError where it fails."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise HandsellError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, took, done.stdout


def measure_commands(repeats: int, folder: Path) -> list[dict]:
    """The command `ray`, as Ray brings it and as the image does, with and without byte code."""
    none = {"PYTHONPYCACHEPREFIX": str(folder / "none"), "PYTHONDONTWRITEBYTECODE": "1"}
    rows = []
    for command, script in (("Ray's", ["-m", "ray.scripts.scripts"]), ("the image's", [str(RAY_COMMAND)])):
        for environment, suffix in ((none, ", without byte code"), ({}, "")):
            runs = [
                run_process([sys.executable, *script, "health-check", "--help"], environment)
                for _ in range(1 if environment else repeats)
            ]
            cpu = min(run[0] for run in runs)
            rows.append(
                {"command": f"ray health-check, {command}{suffix}", "CPU s": cpu, "at 0.2 CPUs, s": cpu / INIT_CPUS}
            )
    return rows


def measure_replicas(config: Config, repeats: int, folder: Path) -> list[dict]:
    """Steps of a replica's start: the least CPU seconds of each, by deployment."""
    none = {"PYTHONPYCACHEPREFIX": str(folder / "none"), "PYTHONDONTWRITEBYTECODE": "1"}
    rows = []
    for stage in STAGES:
        program = STEPS.format([stage, str(config.source)], REPLICA)
        kinds: list[tuple[str, str, dict[str, str], int]] = [
            ("", program, {}, repeats),
            (", with scikit-learn", "import xgboost; " + program, {}, repeats),
        ]
        if stage == "candidate":
            kinds.append((", without byte code", program, none, 1))
        for suffix, code, environment, count in kinds:
            runs = [run_process([sys.executable, "-c", code], environment) for _ in range(count)]
            rows += [_summarize(f"{stage}{suffix}", [(cpu, json.loads(printed)) for cpu, _, printed in runs])]
    return rows


def _summarize(name: str, runs: Sequence[tuple[float, Mapping[str, Sequence[float]]]]) -> dict:
    """The steps of the run that used the least CPU."""
    cpu, steps = min(runs, key=lambda run: run[0])
    names = ("Ray and Serve", "own modules", "open bundle", "load models", "warm-up", "warm-up again", "Feast")
    return {"replica": name, **{step: steps[step][0] if step in steps else None for step in names}, "CPU s": cpu}


def measure_actors(repeats: int) -> list[dict]:
    """Seconds until an actor answers, in a process that the raylet keeps waiting and in a new one for a runtime_env."""
    import ray

    from handsell.jobs.cluster import prepare_private_cluster

    class Actor:
        def answer(self) -> int:
            return os.getpid()

    remote: Any = ray.remote(num_cpus=0)(Actor)
    kinds: dict[str, dict] = {"waiting": {}, "new, for a runtime_env": {"runtime_env": {"env_vars": {"A": "1"}}}}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    prepare_private_cluster()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        for _ in range(repeats):
            for kind, options in kinds.items():
                time.sleep(WAITING_S)
                begun = time.perf_counter()
                actor = remote.options(**options).remote()
                ray.get(actor.answer.remote())
                seconds[kind].append(time.perf_counter() - begun)
                ray.kill(actor)
    finally:
        ray.shutdown()
    return [
        {"process of an actor": kind, "least s": min(took), "median s": statistics.median(took), "n": len(took)}
        for kind, took in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--parts", choices=("processes", "actors", "all"), default="all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    config = load_config(options.config)
    tables = {}
    with tempfile.TemporaryDirectory(prefix="handsell-start-") as folder:
        if options.parts != "actors":
            tables["commands"] = measure_commands(options.repeats, Path(folder))
            tables["replicas, CPU s"] = measure_replicas(config, options.repeats, Path(folder))
        if options.parts != "processes":
            tables["actors"] = measure_actors(options.repeats)
    name, rows = tables.popitem()
    write_report("start", rows, {"last table": name, "repeats": options.repeats}, options.json, tables)


if __name__ == "__main__":
    main()
