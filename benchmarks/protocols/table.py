"""What a run found: a table for people, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.protocols.datasets import Yardstick
from benchmarks.protocols.protocol import METRICS, OBJECTIVE
from benchmarks.protocols.run import Row, Settings, told
from handsell.core.errors import DataError
from handsell.evaluation.machine import describe_machine

WIDTH = 140  # the table's; a narrower terminal folds it


def print_table(rows: Sequence[Row], yard: Yardstick, settings: Settings, console: Console | None = None) -> None:
    console = console or Console(width=max(Console().width, WIDTH))
    events, questions = yard.final.events, yard.final.questions
    asked = f"{len(questions):,} test requests" if settings.test else "validation part only"
    out = Table(
        title=f"{yard.format}: {events.n_users:,} lines, {yard.n_items:,} items, {len(events):,} events, {asked}"
    )
    out.add_column("model")
    out.add_column("hyper-parameters", overflow="fold")
    for name in ("trials", f"validation {OBJECTIVE}@{settings.k}", "fit s", "users/s", "peak MiB"):
        out.add_column(name, justify="right")
    for name in yard.metrics:
        out.add_column(_heading(name, settings.k), justify="right", no_wrap=True)
    for row in rows:
        out.add_row(*_cells(row, yard.metrics))
    console.print(out)
    for row in rows:
        if row.error:
            console.print(f"{row.model} failed: {row.error}", markup=False, soft_wrap=True)


def as_json(rows: Sequence[Row], yard: Yardstick, settings: Settings, command: str) -> dict[str, Any]:
    """Everything that is needed to tell what was measured, and to measure it again."""
    shown = [_heading(name, settings.k) for name in yard.metrics]
    return {
        "command": command,
        "format": yard.format,
        "k": settings.k,
        "seed": settings.seed,
        "budget_s": settings.budget_s,
        "tuned": settings.tune,
        "data": {
            "fingerprint": yard.fingerprint, "lines": yard.final.events.n_users, "items": yard.n_items,
            "events": len(yard.final.events), "requests": len(yard.final.questions),
            "masks_history": yard.masks_history,
        },
        "machine": describe_machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "metrics": shown,
        "rows": [_row(row, yard, settings.k) for row in rows],
    }  # fmt: skip


def write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}): choose another --json") from None


def _row(row: Row, yard: Yardstick, k: int) -> dict[str, Any]:
    out = asdict(row)
    for part in ("validation", "metrics"):
        shown = getattr(row, part)
        out[part] = {_heading(name, k): _value(name, shown[name]) for name in (*yard.metrics, OBJECTIVE) if shown}
    return out


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    trials = "" if row.search is None else f"{len(row.search.trials)}{'' if row.search.complete else ' (cut)'}"
    value = f"{row.validation[OBJECTIVE]:.4f}" if row.validation else ""
    cost = [f"{row.fit_s:.1f}", f"{row.users_per_s:,.0f}", f"{row.peak_mib:,.0f}"] if row.metrics else [""] * 3
    shown = row.metrics or row.validation
    figures = [_figure(name, shown[name]) if shown else "" for name in metrics]
    if row.error:
        return [row.model, "failed", *[""] * (5 + len(metrics))]
    return [row.model, told(row.params), trials, value, *cost, *figures]


def _heading(name: str, k: int) -> str:
    return f"{name}@{k}{' %' if METRICS[name].per_cent else ''}"


def _value(name: str, value: float) -> float:
    return 100 * value if METRICS[name].per_cent else value


def _figure(name: str, value: float) -> str:
    return f"{_value(name, value):.2f}" if METRICS[name].per_cent else f"{value:.4f}"
