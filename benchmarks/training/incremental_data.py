"""Time and memory of the data step for 100,000 new events, beside one that reads everything, for growing histories.

    python -m benchmarks ingest --events 1_000_000 10_000_000 20_000_000

The history is a folder of Parquet files. New events come through the event store, whose compaction is part of the
step, and as one more file. Each step is a process on a private Ray cluster, whose start is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import MIB, write_report
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.events.store.sqlite_writer import SqliteWriter

EVENTS_PER_USER, ITEMS, DAYS, FILE_ROWS = 160, 20_000, 60, 1_000_000
END = 20_600 * DAY_US
TOML = """name = "history"
[data]
format = "tables"
[data.tables.events]
path = "events"
[events.types]
view = {{ weight = 1.0 }}
like = {{ weight = 2.0 }}
[jobs]
partitions = 4
num_cpus = {cpus}
"""
CHILD = """
import json, sys, time
from handsell.config import load_config
from handsell.jobs.cluster import connect
from handsell.jobs.ingest.ingest import prepare
config = load_config(sys.argv[1])
with connect(config.jobs.num_cpus):
    begun = time.perf_counter()
    meta = prepare(config)
    seconds = time.perf_counter() - begun
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("RESULT", json.dumps([seconds, int(peak.split()[1]) / 1024, meta["events"], meta["skipped"]]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ingest", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000, 20_000_000])
    parser.add_argument("--new", type=int, default=100_000, help="new events of each kind")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 2, help="CPUs of the private cluster")
    parser.add_argument("--folder", type=Path, default=None, help="for data and state (about 3 GB at 20 M events)")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    rows = [row for events in options.events for row in measure_history(events, options)]
    write_report("ingest", rows, {"new_events": options.new, "cpus": options.cpus}, options.json)


def measure_history(events: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the steps on one history in a folder of its own."""
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="handsell-bench-", dir=options.folder))
    os.environ["HANDSELL_HOME"] = str(folder / "home")
    try:
        source = folder / "history.toml"
        source.write_text(TOML.format(cpus=options.cpus))
        rng = np.random.default_rng(17)
        for number, start in enumerate(range(0, events, FILE_ROWS)):
            write_file(folder / "events", number, draw_events(rng, min(FILE_ROWS, events - start), events, 0))
        rows = [measure("everything", events, source)]
        post(source, draw_events(rng, options.new, events, 1))
        rows.append(measure("new in the event store", events, source))
        write_file(folder / "events", 99_999, draw_events(rng, options.new, events, 1))
        rows.append(measure("a new file", events, source))
        rows.append(measure("nothing new", events, source))
        return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def draw_events(rng: np.random.Generator, n: int, history: int, days_later: int) -> dict[str, np.ndarray]:
    """Draw events of random users and items; in later ones, a tenth of the users and items is new."""
    users = max(history // EVENTS_PER_USER, 10)
    span, spread = (DAYS * DAY_US, 1.0) if not days_later else (DAY_US, 1.1)
    return {
        "user_id": rng.integers(0, int(users * spread), n),
        "item_id": (ITEMS * spread * rng.random(n) ** 2).astype(np.int64),
        "type": (rng.random(n) < 0.1).astype(np.int8),
        "time": END + (DAY_US if days_later else 0) - rng.integers(1, span, n),
    }


def write_file(folder: Path, number: int, events: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    types = pa.array(["view", "like"])
    columns = {
        "user_id": pa.array(events["user_id"]).cast(pa.string()),
        "item_id": pa.array(events["item_id"]).cast(pa.string()),
        "type": types.take(pa.array(events["type"])),
        "time": pa.array(events["time"]).cast(pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(columns), folder / f"part-{number:05d}.parquet")


def post(source: Path, events: dict[str, np.ndarray]) -> None:
    """Append events to the event store, as a service does."""
    names = ("view", "like")
    columns = (events[name].tolist() for name in ("user_id", "item_id", "type", "time"))
    rows = [
        {"user_id": str(user), "item_id": str(item), "type": names[kind], "time": at}
        for user, item, kind, at in zip(*columns, strict=True)
    ]
    with SqliteWriter(Layout(load_config(source).state).event_log) as log:
        for start in range(0, len(rows), 1_000):
            log.append(rows[start : start + 1_000]).result()


def measure(step: str, history: int, source: Path) -> dict[str, Any]:
    """Run the data step in a process; sample the largest task and all processes twice a second."""
    log = source.with_suffix(".log")
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-c", CHILD, str(source)], stdout=out, stderr=subprocess.STDOUT)
        task, total = 0.0, 0.0
        while process.poll() is None:
            with suppress(psutil.Error, OSError):
                found = psutil.Process(process.pid).children(recursive=True)
                tasks = [one.memory_full_info().uss / MIB for one in found if "ray::" in " ".join(one.cmdline()[:1])]
                task, total = max(task, *tasks, 0.0), max(total, sum(tasks))
            time.sleep(0.5)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("RESULT")]
    if not lines:
        raise SystemExit(log.read_text(errors="replace")[-4000:])
    seconds, driver, events, skipped = json.loads(lines[-1].removeprefix("RESULT"))
    row = {
        "history": history, "step": step, "seconds": seconds, "driver MiB": driver, "largest task MiB": task,
        "all tasks MiB": total, "events": events, "skipped": str(skipped),
    }  # fmt: skip
    print({name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()}, flush=True)
    return row


if __name__ == "__main__":
    main()
