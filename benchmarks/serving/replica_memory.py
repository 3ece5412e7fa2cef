"""What each warm replica holds of the bundle for itself: memory of the graph's processes, files of the bundle apart.

    make up && make down && python -m benchmarks memory

Every stage has two replicas, so that a page that one maps and the other has read too counts as shared. `files private`
is what a replica has copied of mapped files of the bundle (dirty pages: 0 is asked); `files alone` is clean, in the
page cache, and mapped by no other process just then. `private` is all else that would be freed with the process (USS).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and the rest

import psutil

from benchmarks.faults.fault_targets import Graph
from benchmarks.report import MIB, report
from benchmarks.serving.layouts import Layout, running
from benchmarks.serving.load_generator import capacity
from benchmarks.serving.smoke import users_of
from handsell.config import load_config

STAGES = ("Gateway", "Candidates", "Ranking", "Reranking")
WARM_S = 10.0


def held(process: psutil.Process, folder: Path) -> dict[str, Any]:
    """MiB of one process; files are those mapped from below the folder."""
    files = [m for m in process.memory_maps() if m.path.startswith(f"{folder}/")]
    whole = process.memory_full_info()

    def mib(parts: Iterable[int]) -> float:
        return sum(parts) / MIB

    return {
        "files mapped": mib(m.rss for m in files),
        "files private": mib(m.private_dirty for m in files),
        "files alone": mib(m.private_clean for m in files),
        "private": mib([whole.uss]) - mib(m.private_clean + m.private_dirty for m in files),
        "pss": mib([whole.pss]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--replicas", type=int, default=2, help="of each stage")
    parser.add_argument("--topology", choices=("graph", "fused"), default="graph")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    config = load_config(asked.config)
    users = users_of(config, asked.users)
    stages = STAGES if asked.topology == "graph" else ("Gateway",)
    least = dict.fromkeys(stages, asked.replicas)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-memory-")))
        service = stack.enter_context(running(Layout("graph", asked.topology, least=least), config, folder))
        graph = Graph(service)
        graph.wait_for(least)
        capacity(service.url, users, folder, 16, WARM_S)
        time.sleep(2)
        bundles = config.state.resolve()
        rows = [
            {"deployment": name, "replica": place, **held(process, bundles)}
            for name in stages
            for place, process in enumerate(graph.processes(name))
        ]
        everything = sum(held(process, bundles)["pss"] for process in service.family())
    report("memory", rows, {"topology": asked.topology, "pss of all processes, MiB": everything}, asked.json)
    sys.exit(any(row["files private"] > 0 for row in rows))


if __name__ == "__main__":
    main()
