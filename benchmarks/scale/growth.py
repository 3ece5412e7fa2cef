"""How time and memory of each step grow with the events, and at how many of them memory ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import psutil

from benchmarks.report import MIB

MEMORY = ("driver MiB", "largest worker MiB")


def describe_growth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per step and number of nodes with at least two sizes: the growth per million events.

    `memory ends at, M` is the number of events at which the process that grows fastest would need all of this machine's
    memory, by the line through the smallest and the largest run.
    """
    found = []
    key = lambda row: (row["nodes"], row["step"])  # noqa: E731
    for (nodes, step), group in groupby(sorted(rows, key=key), key):
        runs = sorted(group, key=lambda row: row["events"])
        first, last = runs[0], runs[-1]
        millions = (last["events"] - first["events"]) / 1e6
        if not millions:
            continue
        slopes = {name: (last[name] - first[name]) / millions for name in ("seconds", *MEMORY)}
        found.append(
            {
                "step": step,
                "nodes": nodes,
                "seconds per M": slopes["seconds"],
                "driver MiB per M": slopes["driver MiB"],
                "worker MiB per M": slopes["largest worker MiB"],
                "limited by": last["worker"] if slopes[MEMORY[1]] > slopes[MEMORY[0]] else "driver",
                "memory ends at, M": _find_limit(last, slopes),
            }
        )
    return found


def _find_limit(last: Mapping[str, Any], slopes: Mapping[str, float]) -> float | None:
    """Return millions of events; None where nothing grows by a MiB per million."""
    total = psutil.virtual_memory().total / MIB
    ends = [last["events"] / 1e6 + (total - last[name]) / slopes[name] for name in MEMORY if slopes[name] > 1]
    return round(min(ends), 1) if ends else None
