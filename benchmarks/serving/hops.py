"""Where the time of a hop goes: what a call from the gateway to a stage passes, one request at a time.

    make up && make down && python -m benchmarks hops
    python -m benchmarks hops --ingress plain --seconds 20

Every process marks when a call passes a point (`hop_marks.py`; some 2 µs a mark); all read one clock. Figures are
medians, in ms. `compute alone` is the same stage as a plain call in one thread, in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the rest

from benchmarks.report import report, speed
from benchmarks.serving import call_trace as hop_marks
from benchmarks.serving.layout_comparison import WARM_S, wrk
from benchmarks.serving.layouts import Layout, running
from benchmarks.serving.smoke import floor, users_of
from handsell.config import load_config

# what lies between a point and the one before it
PARTS = {
    "routed": "gateway: handle and router",
    "sent": "gateway: pickle, start of the gRPC call",
    "arrived": "on the way, until the replica's loop has it",
    "entered": "replica: unpickle, accept",
    "done": "the stage's method",
    "replied": "replica: pickle",
    "accepted": "on the way, until the gateway's loop has it",
    "answered": "gateway: unpickle",
}
STAGES = dict(zip(hop_marks.METHODS, ("candidates", "ranking", "reranking"), strict=True))
SETTLE_S = 2.5  # until the marks are written


def calls(marks: Sequence[tuple[int, str]]) -> Iterator[tuple[str, list[float]]]:
    """The stage and the ms of each part, of every call that passed all points in order and no other's."""
    stage, times, points = "", [], []
    for at, point in marks:
        if point.startswith("call:"):
            stage, times, points = STAGES[point.removeprefix("call:")], [at], []
        elif stage:
            times.append(at)
            points.append(point)
            if point == "answered":
                if points == list(PARTS):
                    yield stage, [(after - before) / 1e6 for before, after in itertools.pairwise(times)]
                stage = ""


def marks_of(folder: Path, begun: int, ended: int) -> list[tuple[int, str]]:
    """All processes' marks between two moments of the monotonic clock, in order."""
    split = (line.split(maxsplit=1) for file in folder.glob("*.txt") for line in file.read_text().splitlines())
    return sorted((int(at), point) for at, point in split if begun <= int(at) <= ended)


def table(found: dict[str, list[list[float]]], alone: dict[str, float]) -> list[dict[str, Any]]:
    """A row per part, the median of each stage's calls, and under `trip` the sum of the three medians."""
    rows = []
    for place, part in enumerate(PARTS.values()):
        each = {stage: statistics.median(call[place] for call in found[stage]) for stage in STAGES.values()}
        rows.append({"part": part, **each, "trip": sum(each.values())})
    whole = {stage: statistics.median(map(sum, found[stage])) for stage in STAGES.values()}
    rows.append({"part": "whole hop", **whole, "trip": sum(whole.values())})
    compute = {stage: alone[stage] for stage in STAGES.values()}
    rows.append({"part": "compute alone", **compute, "trip": sum(compute.values())})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks hops", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--ingress", choices=("haproxy", "plain"), default="haproxy")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("the load generator wrk is expected on the path: apt-get install wrk")
    config = load_config(asked.config)
    ids = users_of(config, asked.users)
    paces = [speed()]
    alone = floor(config, ids, asked.seconds)
    with tempfile.TemporaryDirectory(prefix="handsell-hops-") as name:
        folder, users = Path(name), Path(name) / "users.txt"
        users.write_text("\n".join(ids) + "\n")
        (folder / "marks").mkdir()
        layout = Layout("graph", "graph", asked.ingress, marks=str(folder / "marks"))
        with running(layout, config, folder) as service:
            wrk(service.url, users, 1, WARM_S)
            paces.append(speed())
            begun = time.monotonic_ns()
            load = wrk(service.url, users, 1, asked.seconds)
            ended = time.monotonic_ns()
            time.sleep(SETTLE_S)
        found: dict[str, list[list[float]]] = {stage: [] for stage in STAGES.values()}
        for stage, parts in calls(marks_of(folder / "marks", begun, ended)):
            found[stage].append(parts)
    about = {
        "ingress": asked.ingress, "bundle": alone["bundle"], "seconds": asked.seconds, "requests": load["n"],
        "calls": {stage: len(each) for stage, each in found.items()}, "p50 ms, marked": load["p50"],
        "floor p50 ms": alone["p50"], "speed, floor and graph": [round(pace, 1) for pace in paces],
    }  # fmt: skip
    if not all(found.values()):
        sys.exit(f"no call passed all points in order: {about['calls']}; does this Ray have others? See hop_marks.py")
    report("hops", table(found, alone["stages"]), about, asked.json)


if __name__ == "__main__":
    main()
