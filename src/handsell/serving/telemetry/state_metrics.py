"""Metrics of the event store and the state folder: size, rows, lag of its readers, disk use.

A background task measures every EVERY_S seconds in a thread, so neither requests nor scrapes wait for it. Counting the
rows of a large store takes seconds: then it measures less often, for at most 1 / REST of the time.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.compacted_files import read_position
from handsell.events.store.interface import EventReader
from handsell.events.store.opening import open_reader
from handsell.maintenance.files import measure_folder
from handsell.maintenance.trimming import PROCESSOR

log = logging.getLogger(__name__)

EVERY_S = 30.0
REST = 100


@dataclass(frozen=True, slots=True)
class Lag:
    """Events that a reader of the store has not read, at most, and the age of the oldest of them."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StateMeasures:
    store: dict[str, int]  # bytes, and rows by table
    lags: dict[str, Lag]  # by reader: compaction, processor
    disk: dict[str, int]  # bytes by folder of the state
    free: int  # bytes of the disk


def measure_state(config: Config, now_us: int) -> StateMeasures:
    """Measure store and state folder; `now_us` is the service's time. Raises EventStoreError or OSError."""
    layout = Layout(config.state)
    with closing(open_reader(config)) as reader:
        positions = {
            "compaction": read_position(layout.compacted, "events"),
            "processor": reader.read_position(PROCESSOR),
        }
        lags = {name: measure_lag(reader, position, now_us) for name, position in positions.items()}
        store = reader.measure()
    disk = {path.name: measure_folder(path) for path in sorted(layout.state.glob("[!.]*")) if path.is_dir()}
    return StateMeasures(store, lags, disk, shutil.disk_usage(layout.state).free)


def measure_lag(reader: EventReader, position: int, now_us: int) -> Lag:
    """Return how far a reader at an offset is behind the newest event; offsets may have gaps."""
    behind = max(reader.last_offset() - position, 0)
    oldest = reader.scan(position, 1)["time"] if behind else []
    return Lag(behind, max(now_us - oldest[0], 0) / 1e6) if oldest else Lag(0, 0.0)


class StateMetrics:
    """Measures again and again, and publishes the result as gauges."""

    def __init__(self, registry: CollectorRegistry):
        r, self._measured = registry, time.monotonic()
        self._store_bytes = Gauge("handsell_store_bytes", "Size of the event store", registry=r)
        self._store_rows = Gauge("handsell_store_rows", "Rows of the event store", ("table",), registry=r)
        self._lag_events = Gauge(
            "handsell_lag_events",
            "Events that a reader of the store has not read yet, at most",
            ("reader",),
            registry=r,
        )
        self._lag_seconds = Gauge(
            "handsell_lag_seconds", "Age of the oldest event that a reader of the store has not read yet", ("reader",),
            registry=r,
        )  # fmt: skip
        self._disk = Gauge("handsell_disk_bytes", "Disk use by folder of the state", ("folder",), registry=r)
        self._free = Gauge("handsell_disk_free_bytes", "Free space on the disk of the state folder", registry=r)
        age = Gauge("handsell_state_age_seconds", "Time since store and disk were measured", registry=r)
        age.set_function(lambda: time.monotonic() - self._measured)

    async def run(self, config: Config, now_us: Callable[[], int]) -> None:
        """Measure until cancelled; a failure is logged, and the last values stay."""
        while True:
            begun = time.monotonic()
            try:
                self.publish(await asyncio.to_thread(measure_state, config, now_us()))
            except Exception as error:
                log.warning("store and disk were not measured: %s", error)
            await asyncio.sleep(max(EVERY_S, REST * (time.monotonic() - begun)))

    def publish(self, measures: StateMeasures) -> None:
        self._measured = time.monotonic()
        self._store_bytes.set(measures.store["bytes"])
        for table, rows in measures.store.items():
            if table != "bytes":
                self._store_rows.labels(table).set(rows)
        for reader, lag in measures.lags.items():
            self._lag_events.labels(reader).set(lag.events)
            self._lag_seconds.labels(reader).set(lag.seconds)
        for folder, size in measures.disk.items():
            self._disk.labels(folder).set(size)
        self._free.set(measures.free)
