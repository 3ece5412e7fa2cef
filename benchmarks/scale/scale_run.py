"""Data, features and training on several nodes and for more and more events: results, time and peak memory of steps.

    python -m benchmarks scale --nodes 1 2 4                              # the same events on 1, 2 and 4 raylets
    python -m benchmarks scale --nodes 1 --events 1_000_000 5_000_000     # up to 100_000_000, as the machine allows

Every run starts a private cluster of raylets on this machine, in a program of its own. The driver's peak is measured by
the kernel; workers are sampled. Results are the SHA-256 of the numbered events, of the feature tables and of the fitted
models. All nodes share the processors of this machine, so that the time says little about separate machines.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import write_report
from benchmarks.scale.growth import describe_growth
from benchmarks.scale.node_run import StepRun, run_on_nodes
from benchmarks.training.driver_memory import EVENTS_PER_USER, TOML
from handsell.config import load_config

STEPS = ("data", "features", "apply", "train")
MANY_MODELS = "[retrieval.two_tower]\nepochs = 1"
FEW_MODELS = "[retrieval.two_tower]\nenabled = false"


def main() -> None:
    options = parse_options()
    rows: list[dict[str, Any]] = []
    outputs: dict[int, set[tuple[str, ...]]] = {}
    for events in options.events:
        for nodes in options.nodes:
            with tempfile.TemporaryDirectory(prefix="handsell-scale-", dir=options.folder) as name:
                steps = run_once(options, events, nodes, Path(name))
            rows += [build_row(events, nodes, step) for step in steps]
            outputs.setdefault(events, set()).add(tuple(step.result for step in steps))
            for row in rows[-len(steps) :]:
                print({key: value for key, value in row.items() if value != ""}, flush=True)
            if any(step.failed for step in steps):
                finish(options, rows, outputs)
    finish(options, rows, outputs)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000], help="approximate numbers")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1], help="numbers of raylets")
    parser.add_argument("--cpus", type=int, default=2, help="logical CPUs of each raylet")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=1, help="retrieval.shards of the trained bundle")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--neural", action="store_true", help="fit the two-tower model, too (one epoch)")
    parser.add_argument("--least-free-gib", type=float, default=4.0, help="of memory; a run that leaves less is ended")
    parser.add_argument("--folder", type=Path, default=None, help="for the state (60 GB at 100 M events)")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def run_once(options: argparse.Namespace, events: int, nodes: int, folder: Path) -> list[StepRun]:
    users = max(round(events / EVENTS_PER_USER), 10)
    toml = TOML if options.neural else TOML.replace(MANY_MODELS, FEW_MODELS)
    toml = toml.replace("[retrieval.history]", f"[retrieval]\nshards = {options.shards}\n[retrieval.history]", 1)
    path = folder / "big.toml"
    path.write_text(
        toml.format(
            users=users, items=options.items, artists=max(options.items // 10, 1), per_partition=2_000,
            partitions=max(8, events // 500_000), cpus=options.cpus * nodes, gcs_port=1, dashboard_port=2,
        )
    )  # fmt: skip
    os.environ["HANDSELL_HOME"] = str(folder)
    config = load_config(path)
    steps = run_on_nodes(config, nodes, options.cpus, options.steps, options.least_free_gib)
    shutil.rmtree(config.state, ignore_errors=True)
    return steps


def build_row(events: int, nodes: int, step: StepRun) -> dict[str, Any]:
    return {
        "events": events,
        "nodes": nodes,
        "step": step.name,
        "seconds": step.seconds,
        "driver MiB": step.driver_mib,
        "largest worker MiB": step.worker_mib,
        "worker": step.worker,
        "all PSS MiB": step.total_mib,
        "disk MiB": step.disk_mib,
        "result": step.result[:12],
        "failed": step.failed,
    }


def finish(options: argparse.Namespace, rows: list[dict[str, Any]], outputs: dict[int, set[tuple[str, ...]]]) -> None:
    """Print and write the report, and end with an error where a step failed or results differ between nodes."""
    same = all(len(results) == 1 for results in outputs.values())
    failed = [row for row in rows if row["failed"]]
    growth = describe_growth(rows) if not failed else []
    about = {"cpus_per_node": options.cpus, "items": options.items, "same_results_on_all_nodes": same}
    write_report("scale", rows, about, options.json, {"scale_growth": growth} if growth else None)
    if failed:
        sys.exit(f"{failed[0]['step']} of {failed[0]['events']:,} events: {failed[0]['failed']}")
    sys.exit(0 if same else "the results differ between numbers of nodes")


if __name__ == "__main__":
    main()
