"""Output of the benchmarks: a table on the terminal, a JSON file, and a description of the machine in both."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import handsell.evaluation.machine

RESULTS = Path(__file__).parent / "results"
MIB = 2**20


def describe_machine() -> dict[str, Any]:
    """Processor, operating system, versions, memory, and the load average at this time."""
    described = handsell.evaluation.machine.describe_machine()
    return {
        **{name: value for name, value in described.items() if name != "libraries"},
        **described["libraries"],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def measure_cpu_speed(seconds: float = 0.2) -> float:
    """Million iterations per second of an empty Python loop: the present speed of the processor."""
    turns, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for _ in range(10_000):
            pass
        turns += 10_000
    return turns / (time.perf_counter() - begun) / 1e6


def write_report(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    path: Path | None = None,
    others: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Path:
    """Print rows (all with the same keys) as a table, then `about` and the machine; write everything as JSON.

    `others` are further tables by name, printed first. The file is benchmarks/results/NAME.json unless `path` is given.
    """
    console, others = Console(width=140), others or {}
    for title, table in {**others, name: rows}.items():
        console.print(_build_table(title, table))
    machine = describe_machine()
    console.print(", ".join(f"{key} {value}" for key, value in {**about, **machine}.items()))
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, "machine": machine, **about, "rows": list(rows), **others}, indent=1))
    console.print(f"written to {path}")
    return path


def _build_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_format(value) for value in row.values()))
    return table


def _format(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if not isinstance(value, float) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"
