"""Time of each part of a call from the gateway to a stage through Serve's handles, with one request at a time.

    make up && make down && python -m benchmarks hops
    python -m benchmarks hops --ingress plain --seconds 20

Every process records when a call passes a point (call_trace.py; about 2 µs per record), on one clock. Figures are
medians in ms. `compute alone` is the same stage as a plain call in one thread, in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

from benchmarks.report import measure_cpu_speed, write_report
from benchmarks.serving import call_trace
from benchmarks.serving.layout_comparison import WARM_S, require_wrk, run_wrk
from benchmarks.serving.layouts import ServingLayout, start_layout
from benchmarks.serving.smoke import measure_floor, sample_users
from handsell.config import load_config

# point → what happens between the point before it and this one
PARTS = {
    "routed": "gateway: handle and router",
    "sent": "gateway: pickle, start of the gRPC call",
    "arrived": "in transit, until the replica's event loop has it",
    "entered": "replica: unpickle, accept",
    "done": "the stage's method",
    "replied": "replica: pickle",
    "accepted": "in transit, until the gateway's event loop has it",
    "returned": "gateway: unpickle",
}
STAGES = dict(zip(call_trace.OPERATIONS, ("candidates", "ranking", "reranking"), strict=True))
FLUSH_S = 2.5  # until all records are written


def split_calls(records: Sequence[tuple[int, str]]) -> Iterator[tuple[str, list[float]]]:
    """Yield stage and ms of each part for every call whose points are complete and not mixed with another call's."""
    stage = ""
    times: list[int] = []
    points: list[str] = []
    for at, point in records:
        if point.startswith("call:"):
            stage, times, points = STAGES[point.removeprefix("call:")], [at], []
        elif stage:
            times.append(at)
            points.append(point)
            if point == "returned":
                if points == list(PARTS):
                    yield stage, [(after - before) / 1e6 for before, after in itertools.pairwise(times)]
                stage = ""


def read_records(folder: Path, begun: int, ended: int) -> list[tuple[int, str]]:
    """Read the records of all processes between two times (monotonic ns), in order."""
    split = (line.split(maxsplit=1) for file in folder.glob("*.txt") for line in file.read_text().splitlines())
    return sorted((int(at), point) for at, point in split if begun <= int(at) <= ended)


def build_table(found: dict[str, list[list[float]]], alone: dict[str, float]) -> list[dict[str, Any]]:
    """One row per part: the median over the calls of each stage, and the sum of the three medians."""
    rows = []
    for place, part in enumerate(PARTS.values()):
        medians = {stage: statistics.median(call[place] for call in found[stage]) for stage in STAGES.values()}
        rows.append({"part": part, **medians, "all three": sum(medians.values())})
    whole = {stage: statistics.median(map(sum, found[stage])) for stage in STAGES.values()}
    rows.append({"part": "whole hop", **whole, "all three": sum(whole.values())})
    compute = {stage: alone[stage] for stage in STAGES.values()}
    rows.append({"part": "compute alone", **compute, "all three": sum(compute.values())})
    return rows


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks hops", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--ingress", choices=("haproxy", "plain"), default="haproxy")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="output file")
    return parser.parse_args()


def main() -> None:
    options = _parse_options()
    require_wrk()
    config = load_config(options.config)
    ids = sample_users(config, options.users)
    speeds = [measure_cpu_speed()]
    floor = measure_floor(config, ids, options.seconds)
    with tempfile.TemporaryDirectory(prefix="handsell-hops-") as name:
        folder, users = Path(name), Path(name) / "users.txt"
        users.write_text("\n".join(ids) + "\n")
        traces = folder / "traces"
        traces.mkdir()
        layout = ServingLayout("graph", "graph", options.ingress, trace_folder=str(traces))
        with start_layout(layout, config, folder) as service:
            run_wrk(service.url, users, 1, WARM_S)
            speeds.append(measure_cpu_speed())
            begun = time.monotonic_ns()
            load = run_wrk(service.url, users, 1, options.seconds)
            ended = time.monotonic_ns()
            time.sleep(FLUSH_S)
        found: dict[str, list[list[float]]] = {stage: [] for stage in STAGES.values()}
        for stage, parts in split_calls(read_records(traces, begun, ended)):
            found[stage].append(parts)
    counts = {stage: len(calls) for stage, calls in found.items()}
    if not all(found.values()):
        sys.exit(f"no call passed all points in order: {counts}. Check the names in call_trace.py for this Ray version")
    about = {
        "ingress": options.ingress, "bundle": floor["bundle"], "seconds": options.seconds, "requests": load["n"],
        "calls": counts, "p50 ms, traced": load["p50"], "floor p50 ms": floor["p50"],
        "speed, floor and graph": [round(speed, 1) for speed in speeds],
    }  # fmt: skip
    write_report("hops", build_table(found, floor["stages"]), about, options.json)


if __name__ == "__main__":
    main()
