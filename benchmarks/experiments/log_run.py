"""Time and peak memory of the analysis of a large log: compacted impressions and events of one experiment."""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import MIB, write_report
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.schemas import TIME
from handsell.events.compacted_files import SCHEMAS, write_range
from handsell.experiments.analysis.analysis import find_shares, list_arms
from handsell.experiments.analysis.log.outcome_tables import ExposureFilter, open_outcomes
from handsell.experiments.analysis.verdict import choose_settings, judge

START = 20_600 * DAY_US
DAYS, ITEMS, CLICKS = 14, 10, 0.08
SLATES_PER_RANGE = 100_000
TOML = """
name = "log"
[data]
format = "world"
[experiments.test.arms.control]
share = 0.5
[experiments.test.arms.bold]
share = 0.5
"""


def write_slates(config: Config, number: int, users: int, rng: np.random.Generator) -> int:
    """Write one range of slates and one of the clicks on them; return the clicks."""
    n, first = SLATES_PER_RANGE, number * SLATES_PER_RANGE
    folder = Layout(config.state).compacted
    user = rng.integers(users, size=n)
    times = START + np.sort(rng.integers(DAYS * DAY_US, size=n))
    arms = pa.array([json.dumps({"test": arm}) for arm in ("control", "bold")]).take(pa.array(user % 2))
    rows = np.repeat(np.arange(n), ITEMS)
    item = rng.integers(50_000, size=n * ITEMS)
    columns = {
        "recommendation_id": _name("r", first + rows), "time": pa.array(times[rows], pa.int64()).cast(TIME),
        "user_id": _name("u", user[rows]), "surface": pa.array(["home"]).take(pa.array(np.zeros(len(rows), int))),
        "item_id": _name("i", item), "position": pa.array(np.tile(np.arange(1, ITEMS + 1), n), pa.int16()),
        "arms": arms.take(pa.array(rows)), "offset": pa.array(first + rows + 1),
    }  # fmt: skip
    write_range(folder, "impressions", first + 1, first + n, _fill("impressions", columns, len(rows)))
    clicked = np.flatnonzero(rng.random(len(rows)) < CLICKS)
    which = rows[clicked]
    columns = {
        "event_id": _name(f"e{number}-", np.arange(len(clicked))), "user_id": _name("u", user[which]),
        "item_id": _name("i", item[clicked]), "type": pa.array(["click"]).take(pa.array(np.zeros(len(clicked), int))),
        "time": pa.array(times[which] + 5_000_000, pa.int64()).cast(TIME),
        "recommendation_id": _name("r", first + which), "offset": pa.array(first + np.arange(len(clicked)) + 1),
    }  # fmt: skip
    write_range(folder, "events", first + 1, first + n, _fill("events", columns, len(clicked)))
    return len(clicked)


def _name(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(prefix, numbers.astype(str)).tolist(), pa.string())


def _fill(kind: str, columns: dict[str, pa.Array], rows: int) -> pa.Table:
    schema = SCHEMAS["impressions" if kind == "impressions" else "events"]
    return pa.table([columns.get(f.name, pa.nulls(rows, f.type)) for f in schema], schema=schema)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks experiment_log", description=__doc__)
    parser.add_argument("--slates", type=int, default=1_000_000, help=f"of {ITEMS} items each")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log.toml"
        path.write_text(TOML)
        config = load_config(path)
        ranges = max(options.slates // SLATES_PER_RANGE, 1)
        clicks = sum(write_slates(config, number, options.users, rng) for number in range(ranges))
        before, begun = _measure_peak(), time.perf_counter()
        experiment = config.experiments["test"]
        arms = list_arms(experiment)
        with open_outcomes(config, ExposureFilter(arms, "test")) as tables:
            built = time.perf_counter()
            outcomes = tables.read()
            read = time.perf_counter()
            verdict = judge("test", outcomes, find_shares(experiment, arms), choose_settings(tables.types, None, 0.02))
    row = {
        "slates": ranges * SLATES_PER_RANGE, "impressions": ranges * SLATES_PER_RANGE * ITEMS, "clicks": clicks,
        "credited": int(outcomes.clicks.sum()), "units": len(outcomes), "tables, s": built - begun,
        "one look, s": read - built, "verdict, s": time.perf_counter() - read,
        "peak memory before, MiB": before, "peak memory, MiB": _measure_peak(),
    }  # fmt: skip
    write_report("experiment_log", [row], {"decision": verdict.decisions["bold"]}, options.json)


def _measure_peak() -> float:
    """Return the peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


if __name__ == "__main__":
    main()
