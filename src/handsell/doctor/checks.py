"""Checks of events, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.config import EventsConfig
from handsell.data.readers.base import REQUIRED, drop_incomplete
from handsell.doctor.counters import DistinctCounter, IdStatistics, hash_rows
from handsell.doctor.doctor_report import EXAMPLES, Finding
from handsell.doctor.id_checks import long_id_finding, mark_long_ids, shorten

EPOCH_YEAR_US = 365 * DAY_US
SHOWN = ("user_id", "item_id", "type", "time", "value")


@dataclass
class EventChecks:
    """Checks batches in NULLABLE_EVENTS; keeps counts, and EXAMPLES rows of each problem."""

    config: EventsConfig
    items: pa.Array  # ids of the items table; may be empty
    users: pa.Array  # ids of the users table; may be empty
    ordered: bool
    now_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    events: int = 0
    interactions: int = 0
    types: dict[str, int] = field(default_factory=dict)
    per_user: IdStatistics = field(default_factory=IdStatistics)
    per_item: IdStatistics = field(default_factory=IdStatistics)
    event_ids: DistinctCounter = field(default_factory=DistinctCounter)
    rows: DistinctCounter = field(default_factory=DistinctCounter)
    pairs: DistinctCounter = field(default_factory=DistinctCounter)
    hours: set[int] = field(default_factory=set)  # hours since the epoch that have an interaction
    problems: dict[str, Finding] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        for problem, mask in self._find_problems(batch):
            self._record(problem, mask, batch)
        self.events += len(batch)
        good = drop_incomplete(batch)
        for entry in pc.value_counts(good["type"]).to_pylist():
            self.types[entry["values"]] = self.types.get(entry["values"], 0) + entry["counts"]
        self.event_ids.add(hash_rows(good["event_id"]))
        self.rows.add(hash_rows(*(good[name] for name in ("user_id", "item_id", "type", "time"))))
        seen = [name for name, kind in self.config.types.items() if kind.seen]
        acted = good.filter(pc.is_in(good["type"], pa.array(seen, pa.string())))
        self.interactions += len(acted)
        self.per_user.add(acted["user_id"], acted["time"])
        self.per_item.add(acted["item_id"], acted["time"])
        self.pairs.add(hash_rows(acted["user_id"], acted["item_id"]))
        self.hours.update((acted["time"].cast(pa.int64()).to_numpy() // HOUR_US).tolist())

    def _find_problems(self, batch: pa.RecordBatch) -> Iterator[tuple[Finding, np.ndarray]]:
        """Yield each check with the rows (N,) bool that fail it."""
        for name in REQUIRED:
            message = f"events without {name} are dropped: fill the column, or map {name} to another column"
            yield Finding(f"null {name}", "warning", message), np.asarray(pc.is_null(batch[name]))
        known = pc.is_in(batch["type"], pa.array(self.config.names, pa.string()))
        yield (
            Finding(
                "unknown event type",
                "error",
                f"events whose type is not in [events.types] ({', '.join(self.config.names)}): "
                "add the type there with a weight, or remove the events",
            ),
            np.asarray(pc.and_(pc.is_valid(batch["type"]), pc.invert(known))),
        )
        yield from self._find_time_problems(batch)
        for name in ("user_id", "item_id"):
            yield long_id_finding(name, "events"), mark_long_ids(batch[name])
        for key, described, table in (("item_id", self.items, "items"), ("user_id", self.users, "users")):
            if len(described):
                message = f"events whose {key} is not in the {table} table: add the missing rows, or ignore this"
                missing = pc.and_(pc.is_valid(batch[key]), pc.invert(pc.is_in(batch[key], described)))
                yield Finding(f"unknown {key}", "warning" if key == "item_id" else "note", message), np.asarray(missing)
        share = np.asarray(pc.fill_null(batch["propensity"], 1.0))
        message = "propensities must be above 0 and at most 1: correct them, or drop the column"
        yield Finding("bad propensity", "warning", message), ~((share > 0) & (share <= 1))

    def _find_time_problems(self, batch: pa.RecordBatch) -> Iterator[tuple[Finding, np.ndarray]]:
        if not self.ordered:
            return
        present = np.asarray(pc.is_valid(batch["time"]))
        at = np.asarray(pc.fill_null(batch["time"].cast(pa.int64()), 0))
        message = "events in 1970 or earlier: probably a missing time stored as 0, or a wrong unit; correct the times"
        yield Finding("time at the epoch", "error", message), present & (at < EPOCH_YEAR_US)
        message = "events in the future: probably a wrong time zone or unit; correct the times"
        yield Finding("time in the future", "error", message), present & (at > self.now_us + DAY_US)

    def _record(self, problem: Finding, mask: np.ndarray, batch: pa.RecordBatch) -> None:
        if not mask.any():
            return
        found = self.problems.setdefault(problem.name, problem)
        found.count += int(mask.sum())
        for row in np.flatnonzero(mask)[: EXAMPLES - len(found.examples)].tolist():
            values = {name: batch[name][row].as_py() for name in SHOWN}
            found.examples.append(
                {"row": self.events + row + 1, **{n: shorten(v) for n, v in values.items() if v is not None}}
            )
