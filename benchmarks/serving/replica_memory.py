"""Memory of each replica of the graph, with the mapped files of the bundle apart, and of every other process.

    make up && make down && python -m benchmarks memory
    python -m benchmarks memory --replicas 1        # as `make up` starts it

Each stage has two replicas, so that pages that both use count as shared. `files private`: pages of mapped bundle files
that the replica has copied (dirty; expected 0). `files alone`: clean pages that no other process maps at the time.
`private`: all other memory that would be freed with the process (USS). `pss`: with a share of what others use, too, so
that the sum over all processes is what the service takes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import psutil

from benchmarks.report import MIB, write_report
from benchmarks.serving.graph_processes import GraphProcesses
from benchmarks.serving.layouts import GRAPH, ServingLayout, start_layout
from benchmarks.serving.load_generator import measure_capacity
from benchmarks.serving.smoke import sample_users
from handsell.config import load_config

WARM_S = 10.0


def measure_memory(process: psutil.Process, folder: Path) -> dict[str, Any]:
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


def name_process(process: psutil.Process) -> str:
    """Return the title that Ray gives a process, or the part of its command line that tells what it is."""
    words = process.cmdline()
    title = words[0].split(" (")[0] if words else process.name()
    if not title.startswith("/"):
        return title.strip()
    modules = (word for word in words[1:] if word.endswith(".py") or (word[0] != "-" and word.count(".") >= 2))
    return Path(next(modules, title)).name


def sum_other_processes(processes: Iterable[psutil.Process]) -> list[dict[str, Any]]:
    """Return the memory of processes by name, in MiB, the largest first."""
    found: dict[str, list[float]] = defaultdict(list)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            found[name_process(process)].append(process.memory_full_info().pss / MIB)
    rows = [{"process": name, "count": len(pss), "pss": sum(pss)} for name, pss in found.items()]
    return sorted(rows, key=lambda row: -row["pss"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("deployments/configs/world.toml"))
    parser.add_argument("--replicas", type=int, default=2, help="of each stage")
    parser.add_argument("--topology", choices=("graph", "fused"), default="graph")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    config = load_config(options.config)
    users = sample_users(config, options.users)
    deployments = GRAPH if options.topology == "graph" else ("Gateway",)
    min_replicas = dict.fromkeys(deployments, options.replicas)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="handsell-memory-")))
        layout = ServingLayout("graph", options.topology, "haproxy", min_replicas=min_replicas)
        service = stack.enter_context(start_layout(layout, config, folder))
        graph = GraphProcesses(service)
        graph.wait_for(min_replicas)
        measure_capacity(service.url, users, folder, 16, WARM_S)  # warm up
        time.sleep(2)
        bundles = config.state.resolve()
        rows = [
            {"deployment": name, "replica": place, **measure_memory(process, bundles)}
            for name in deployments
            for place, process in enumerate(graph.find(name))
        ]
        replicas = {process for name in deployments for process in graph.find(name)}
        others = sum_other_processes(process for process in service.processes() if process not in replicas)
    pss = sum(row["pss"] for row in (*rows, *others))
    about = {"topology": options.topology, "pss of all processes, MiB": pss}
    write_report("memory", rows, about, options.json, {"other processes, MiB": others})
    sys.exit(any(row["files private"] > 0 for row in rows))


if __name__ == "__main__":
    main()
