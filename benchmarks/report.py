"""The machine that figures were taken on, and how every benchmark reports: a table for people, JSON for programs."""

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


def machine() -> dict[str, Any]:
    """Processor, system, versions and memory; `load` is what others were doing when the benchmark began."""
    told = handsell.evaluation.machine.machine()
    return {
        **{name: value for name, value in told.items() if name != "libraries"},
        **told["libraries"],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def speed(seconds: float = 0.2) -> float:
    """Million turns a second of a bare Python loop in this process: how fast the processor is just now."""
    turns, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for _ in range(10_000):
            pass
        turns += 10_000
    return turns / (time.perf_counter() - begun) / 1e6


def report(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    path: Path | None = None,
    others: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Path:
    """Print rows (all with the same keys) as a table, the machine and what else is told; write all of it as JSON.

    `others` are further tables by name, printed first.
    """
    console, others = Console(width=140), others or {}
    for title, each in {**others, name: rows}.items():
        console.print(_table(title, each))
    here = machine()
    console.print(", ".join(f"{key} {value}" for key, value in {**about, **here}.items()))
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, "machine": here, **about, "rows": list(rows), **others}, indent=1))
    console.print(f"written to {path}")
    return path


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, int | float):
        return str(value)
    if not isinstance(value, float) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"
