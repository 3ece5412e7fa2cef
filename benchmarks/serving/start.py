"""Seconds until a new pod serves, part by part, without Kubernetes.

    make up && make down && python -m benchmarks start
    python -m benchmarks start --parts processes        without a cluster

Processes: CPU seconds of fresh interpreters, the least of `--repeats`. `ray health-check` runs before a worker starts,
in a container that KubeRay limits to 0.2 CPUs; the image has a command `ray` of its own. "without byte code" is what a
read-only file system costs where the image brings none. "with scikit-learn" is how xgboost imports by itself.
Node: a second raylet joins the cluster of a service that waits for it with one more replica of Candidates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError

RAY_COMMAND = Path(__file__).parents[2] / "deployments" / "docker" / "ray_command.py"
INIT_CPUS = 0.2  # the limit of KubeRay's container wait-gcs-ready
STEPS = "import runpy, sys; sys.argv[1:] = {!r}; runpy.run_module({!r}, run_name='__main__')"
REPLICA = "benchmarks.serving.replica_steps"
STAGES = ("candidate", "ranking", "reranking", "gateway")
WAIT_S = 120.0


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


def measure_node(config: Config, folder: Path, runtime_env: bool) -> dict:
    """Seconds from the start of another raylet until its replica of Candidates takes calls."""
    from benchmarks.serving.graph_processes import GraphProcesses
    from benchmarks.serving.layouts import ServingLayout, end_processes, process_tree, start_layout, start_node

    name = f"{'with' if runtime_env else 'without'} runtime_env"
    layout = ServingLayout(name, "graph", min_replicas={"Candidates": 2}, one_per_node=True, runtime_env=runtime_env)
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(start_layout(layout, config, folder))
        graph = GraphProcesses(service)
        graph.wait_for({"Candidates": 1})
        begun = time.time()
        node = start_node(service.config)
        stack.callback(lambda: end_processes(process_tree([node])))
        log = service.config.source.with_suffix(".node.log")
        marks: dict[str, float] = {}
        while "replica takes calls" not in marks:
            if time.time() - begun > WAIT_S:
                raise TimeoutError(f"the replica did not run within {WAIT_S:.0f} s; so far: {marks}")
            now = time.time() - begun
            if "node joined" not in marks and "a node joined" in log.read_text():
                marks["node joined"] = now
            for process in process_tree([node]):
                with contextlib.suppress(Exception):
                    if "ServeReplica" in " ".join(process.cmdline()):
                        marks["replica's process started"] = process.create_time() - begun
            if graph.count_running().get("Candidates", 0) > 1:
                marks["replica takes calls"] = now
            time.sleep(0.05)
    return {"application": name, **dict(sorted(marks.items(), key=lambda mark: mark[1]))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks start", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--parts", choices=("processes", "node", "all"), default="all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    config = load_config(options.config)
    tables = {}
    with tempfile.TemporaryDirectory(prefix="handsell-start-") as folder:
        if options.parts != "node":
            tables["commands"] = measure_commands(options.repeats, Path(folder))
            tables["replicas, CPU s"] = measure_replicas(config, options.repeats, Path(folder))
        if options.parts != "processes":
            tables["node, s"] = [measure_node(config, Path(folder), runtime_env) for runtime_env in (True, False)]
    name, rows = tables.popitem()
    write_report("start", rows, {"last table": name, "repeats": options.repeats}, options.json, tables)


if __name__ == "__main__":
    main()
