"""Disk, memory and append latency of the event store alone over cycles of traffic, compaction and trimming.

    python -m benchmarks store_soak                          # 5 million events and 1 million impressions in ten cycles
    python -m benchmarks store_soak --scale 0.1 --keep-keys  # with the default of retention.keys_days

No service and no training: after each compaction, the manifest of a bundle and the positions of the data job and the
stream processor are set as `handsell train` sets them. Everything old is trimmed at once (`events_days = 0`), keys of
events too unless --keep-keys is given. `store MB before` is the size before trimming. The last columns are p50 and p99
(ms) of single events that are appended one after another: while nothing else is written, and while rows are trimmed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
import psutil

from benchmarks.report import MIB, measure_cpu_speed, write_report
from benchmarks.soak.feed import Feed
from benchmarks.soak.feeder import draw_events, draw_slates
from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.events.compaction import compact
from handsell.events.store.interface import EventWriter
from handsell.events.store.opening import open_reader, open_writer
from handsell.features.storage.materialization import record_materialization
from handsell.maintenance.files import measure_folder
from handsell.maintenance.trimming import PROCESSOR, trim_store

EVENTS, IMPRESSIONS, SHOWN = 5_000_000, 1_000_000, 10
USERS, ITEMS = 20_000, 10_000
PAUSE_S, QUIET_S = 0.01, 3.0
TOML = 'name = "store_soak"\n[retention]\nevents_days = 0\nimpressions_days = 0\nbundles = 1\nrollbacks = 0\n'


def write_deployment(folder: Path, keep_keys: bool) -> Config:
    """Write a config and a catalog, in a folder of its own."""
    (folder / "soak.toml").write_text(TOML + ("" if keep_keys else "keys_days = 0\n"))
    os.environ["HANDSELL_HOME"] = str(folder)
    config = load_config(folder / "soak.toml")
    Vocabulary.of(f"u{n:07}" for n in range(USERS)).save(Layout(config.state).catalog / "users")
    Vocabulary.of(f"i{n:07}" for n in range(ITEMS)).save(Layout(config.state).catalog / "items")
    return config


def publish(config: Config, events_through: int) -> None:
    """Publish and promote a bundle, and set the positions that a turn sets."""
    layout, store = Layout(config.state), open_bundles(config)
    staging, now = store.new_dir(), time.time_ns() // 1_000
    (staging / "empty").touch()
    manifest = Manifest(
        config=config.name, created_us=now, data_start_us=0, data_end_us=now, events_through=events_through,
        feature_service="ranking_v1", features=(), sources=(),
    )  # fmt: skip
    store.promote(store.publish(staging, manifest))
    store.prune(1, 0)
    layout.data_meta.parent.mkdir(exist_ok=True)
    layout.data_meta.write_text(json.dumps({"events_through": events_through, "changes_through": 0}))
    record_materialization(layout, events_through)


@contextmanager
def time_appends(log: EventWriter, prefix: str) -> Iterator[list[float]]:
    """Append single events while the block runs; the list has the ms of each afterwards."""
    taken, end = list[float](), threading.Event()

    def run() -> None:
        number = 0
        while not end.wait(PAUSE_S):
            event = {"event_id": f"{prefix}-{number}", "user_id": "u", "item_id": "i", "type": "click", "time": 1}
            begun = time.perf_counter()
            log.append([event]).result()
            taken.append((time.perf_counter() - begun) * 1e3)
            number += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        end.set()
        thread.join()


def run_cycle(config: Config, log: EventWriter, feed: Feed) -> dict[str, float]:
    """Append, compact and trim; return seconds, sizes and latencies."""
    begun = time.perf_counter()
    for events in draw_events(config, feed):
        log.append(events).result()
    for slates in draw_slates(config, feed):
        log.append_slates(slates).result()
    fed = time.perf_counter()
    with time_appends(log, f"quiet-{feed.first}") as quiet:
        time.sleep(QUIET_S)
    largest, compacting = measure_folder(Layout(config.state).event_log.parent), time.perf_counter()
    done = compact(config, lambda _: None)
    publish(config, done.events_through)
    log.save_position(PROCESSOR, done.events_through).result()
    trimming = time.perf_counter()
    with time_appends(log, f"trim-{feed.first}") as busy:
        trim_store(config, lambda method, *arguments: getattr(log, method)(*arguments).result())
    ended = time.perf_counter()
    return {
        "feed s": fed - begun, "compact s": trimming - compacting, "trim s": ended - trimming,
        "store MB before": largest / 1e6, **measure(config), **summarize("quiet", quiet), **summarize("trim", busy),
        "speed": measure_cpu_speed(),
    }  # fmt: skip


def measure(config: Config) -> dict[str, float]:
    layout = Layout(config.state)
    with closing(open_reader(config)) as reader:
        rows = reader.measure()
    store, compacted = (measure_folder(folder) / 1e6 for folder in (layout.event_log.parent, layout.compacted))
    return {
        "store MB": store,
        "compacted MB": compacted,
        "events": rows["events"], "slates": rows["slates"], "keys": rows["trimmed_keys"],
        "memory MiB": psutil.Process().memory_full_info().pss / MIB,
    }  # fmt: skip


def summarize(name: str, taken: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(taken, (50, 99)).tolist() if taken else (np.nan, np.nan)
    return {f"{name} p50": p50, f"{name} p99": p99}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks store_soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of 5 million events and 1 million impressions")
    parser.add_argument("--cycles", type=int, default=10)
    parser.add_argument("--keep-keys", action="store_true", help="keep the keys of trimmed events for 30 days")
    parser.add_argument("--json", type=Path, help="output file")
    options = parser.parse_args()
    events = int(EVENTS * options.scale / options.cycles)
    slates = int(IMPRESSIONS / SHOWN * options.scale / options.cycles)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="handsell-soak-") as folder:
        config = write_deployment(Path(folder), options.keep_keys)
        publish(config, 0)
        with closing(open_writer(config)) as log:
            for cycle in range(options.cycles):
                feed = Feed(str(config.source), events, slates, cycle * max(events, slates))
                rows.append({"events so far": (cycle + 1) * events, **run_cycle(config, log, feed)})
                print({name: round(value, 1) for name, value in rows[-1].items()}, flush=True)
    about = {"scale": options.scale, "impressions": slates * SHOWN * options.cycles, "keys kept": options.keep_keys}
    write_report("store_soak", rows, about, options.json)


if __name__ == "__main__":
    main()
