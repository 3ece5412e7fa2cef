"""Results of a run as a table on the terminal and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.protocols.coordinate_search import Search
from benchmarks.protocols.datasets import ProtocolData
from benchmarks.protocols.protocol import METRICS, OBJECTIVE
from benchmarks.protocols.run import ModelResult, RunSettings, format_params
from handsell.core.errors import DataError
from handsell.evaluation.machine import describe_machine

WIDTH = 140  # of the table, in characters


def print_table(
    results: Sequence[ModelResult], data: ProtocolData, settings: RunSettings, console: Console | None = None
) -> None:
    console = console or Console(width=max(Console().width, WIDTH))
    events, requests = data.final.events, data.final.requests
    tested = f"{len(requests):,} test requests" if settings.test else "validation part only"
    out = Table(
        title=f"{data.format}: {events.n_users:,} lines, {data.n_items:,} items, {len(events):,} events, {tested}"
    )
    out.add_column("model")
    out.add_column("hyper-parameters", overflow="fold")
    for name in ("trials", f"validation {OBJECTIVE}@{settings.k}", "fit s", "users/s", "peak MiB"):
        out.add_column(name, justify="right")
    for name in data.metrics:
        out.add_column(_heading(name, settings.k), justify="right", no_wrap=True)
    for result in results:
        out.add_row(*_build_cells(result, data.metrics))
    console.print(out)
    for result in results:
        if result.error:
            console.print(f"{result.model} failed: {result.error}", markup=False, soft_wrap=True)


def build_json(
    results: Sequence[ModelResult], data: ProtocolData, settings: RunSettings, command: str
) -> dict[str, Any]:
    """Build the JSON document: command, settings, data, machine and results."""
    shown = [_heading(name, settings.k) for name in data.metrics]
    return {
        "command": command,
        "format": data.format,
        "k": settings.k,
        "seed": settings.seed,
        "budget_s": settings.budget_s,
        "tuned": settings.tune,
        "data": {
            "fingerprint": data.fingerprint, "lines": data.final.events.n_users, "items": data.n_items,
            "events": len(data.final.events), "requests": len(data.final.requests),
            "masks_history": data.masks_history, "order": "time" if data.ordered else "none",
            "found_order": asdict(data.found_order) if data.found_order else None,
        },
        "machine": describe_machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "metrics": shown,
        "rows": [_build_row(result, data, settings.k) for result in results],
    }  # fmt: skip


def write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error}): choose another --json") from None


def _build_row(result: ModelResult, data: ProtocolData, k: int) -> dict[str, Any]:
    out = asdict(result)
    for part in ("validation", "metrics"):
        shown = getattr(result, part)
        out[part] = {_heading(name, k): _value(name, shown[name]) for name in (*data.metrics, OBJECTIVE) if shown}
    return out


def _build_cells(result: ModelResult, metrics: Sequence[str]) -> list[str]:
    trials = _format_trials(result.search) if result.search else ""
    value = f"{result.validation[OBJECTIVE]:.4f}" if result.validation else ""
    cost = (
        [f"{result.fit_s:.1f}", f"{result.users_per_s:,.0f}", f"{result.peak_mib:,.0f}"] if result.metrics else [""] * 3
    )
    shown = result.metrics or result.validation
    figures = [_format_metric(name, shown[name]) if shown else "" for name in metrics]
    if result.error:
        return [result.model, "failed", *[""] * (5 + len(metrics))]
    return [result.model, format_params(result.params), trials, value, *cost, *figures]


def _format_trials(search: Search) -> str:
    some = f" + {len(search.on_part)}" if search.on_part else ""
    return f"{len(search.trials)}{some}{'' if search.complete else ' (cut)'}"


def _heading(name: str, k: int) -> str:
    return f"{name}@{k}{' %' if METRICS[name].per_cent else ''}"


def _value(name: str, value: float) -> float:
    return 100 * value if METRICS[name].per_cent else value


def _format_metric(name: str, value: float) -> str:
    return f"{_value(name, value):.2f}" if METRICS[name].per_cent else f"{value:.4f}"
