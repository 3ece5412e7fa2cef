"""Seconds and processor seconds of `handsell up`, step by step, until a person gets recommendations.

    python -m benchmarks up                                      MovieLens 100k as own tables
    python -m benchmarks up --config deployments/configs/world.toml
    python -m benchmarks up --checkout ../before --checkout . --rounds 2     two versions, in turns
    python -m benchmarks up --processes                          also the processor seconds of each process at the end

Each run has a new home folder and free ports, and is stopped afterwards. Processor seconds are those of all processes
that the command has started: beside other work on the machine, compare them rather than seconds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.quality.served_quality import IGNORED_VARIABLES, find_data, read_report, set_ports
from benchmarks.quality.served_tables import write_tables
from benchmarks.report import write_report
from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.local.cluster import ray_folder

STEP = re.compile(r"^\d+/\d+ ([a-z ]+): ")
PART = re.compile(r"^ +\[\d+/\d+\] ([a-z- ]+)( …|: .* …)$")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: processes whose parent has ended become children of this one


def measure(path: Path, checkout: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run `handsell up CONFIG` of a checkout; return when each step began, and the processes that are left at the end.

    Raises HandsellError, with the end of the output, if the command fails.
    """
    before = _read_own_children()
    environment = {name: value for name, value in os.environ.items() if name not in IGNORED_VARIABLES}
    environment |= {"PYTHONPATH": f"{checkout / 'src'}:{checkout}", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "handsell", "up", str(path)]
    begun, steps, lines = time.monotonic(), [], []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=checkout
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            lines.append(line.rstrip())
            if name := read_step(lines[-1]):
                steps.append({"step": name, "s": time.monotonic() - begun, "CPU s": sum_processor_seconds() - before})
    steps.append({"step": "end", "s": time.monotonic() - begun, "CPU s": sum_processor_seconds() - before})
    if up.returncode:
        raise HandsellError("`handsell up` failed; its last lines:\n" + "\n".join(lines[-15:]))
    return steps, list(_list_processes())


def read_step(line: str) -> str | None:
    """Return the step that a line of output begins, or the part of the training; None for other lines."""
    if found := STEP.match(line):
        return found[1] if line.endswith("…") else None
    found = PART.match(line)
    return f"· {found[1]}" if found else None


def sum_processor_seconds() -> float:
    """Return the processor seconds of all processes below this one, also of those that have ended."""
    total = _read_own_children()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def _read_own_children() -> float:
    """Return the processor seconds of children of this process that have ended and were waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _list_processes() -> Iterator[dict[str, Any]]:
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            seconds = sum(process.cpu_times()[:2])
            name = re.sub(r"\S+/(site-packages|bin)/", "", " ".join(process.cmdline()))
            yield {"process": name[:60], "CPU s": seconds}


def run_once(options: argparse.Namespace, checkout: Path, folder: Path) -> tuple[list[dict], list[dict], float | None]:
    """Measure a checkout in a new home folder; return the steps, the processes and NDCG@10 of the report."""
    os.environ["HANDSELL_HOME"] = str(folder / "home")
    if options.config:
        (folder / "config").mkdir()
        path = folder / "config" / options.config.name
        for rules in options.config.parent.glob("rules"):
            shutil.copytree(rules, folder / "config" / "rules")
        shutil.copy(options.config, path)
    else:
        path = write_tables(options.set, find_data(), folder / "tables")
    set_ports(path)
    try:
        steps, processes = measure(path, checkout)
        return steps, processes, read_report(path)
    finally:
        subprocess.run([sys.executable, "-m", "handsell", "down", str(path)], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(ray_folder(load_config(path)), ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks up", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--set", default="ml-100k", help="data set of `served_quality` (default: ml-100k)")
    parser.add_argument("--config", type=Path, help="this config instead of a data set")
    parser.add_argument("--checkout", type=Path, action="append", help="versions to run in turns (default: this one)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", action="store_true", help="print the processes that are left at the end")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    rows, running, ends = [], [], []
    for number in range(options.rounds):
        for checkout in options.checkout or [Path(__file__).parents[2]]:
            with tempfile.TemporaryDirectory(prefix="up-", ignore_cleanup_errors=True) as folder:
                try:
                    steps, processes, ndcg = run_once(options, checkout.resolve(), Path(folder).resolve())
                except HandsellError as error:
                    sys.exit(f"error: {checkout}: {error}")
            about = {"checkout": str(checkout), "round": number + 1}
            rows += [about | step for step in steps]
            running += [about | process for process in processes]
            ends.append(about | {"s": steps[-1]["s"], "CPU s": steps[-1]["CPU s"], "NDCG@10": ndcg})
            print(ends[-1], flush=True)
    tables = {"steps begin at": rows} | ({"processes": running} if options.processes else {})
    write_report("up", ends, {"set": str(options.config or options.set)}, options.json, tables)


if __name__ == "__main__":
    main()
