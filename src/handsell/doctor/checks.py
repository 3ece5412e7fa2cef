"""Checks of events, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.snapshot import ALWAYS, NEVER
from handsell.core.hashing import hash_rows
from handsell.core.units import DAY_US
from handsell.data.config import EventsConfig
from handsell.data.readers.base import FEW_FUTURE, REQUIRED, drop_future, drop_incomplete
from handsell.data.readers.times import YEAR_9999_US
from handsell.data.weights import compute_event_weights, find_threshold_problem
from handsell.doctor.counters import DistinctCounter, HourSpans, IdStatistics
from handsell.doctor.doctor_report import EXAMPLES, Finding
from handsell.doctor.id_checks import ID_RULES, show_row
from handsell.doctor.repeat_checks import RepeatChecks
from handsell.jobs.features.item_rows import read_times

EPOCH_YEAR_US = 365 * DAY_US
SHOWN = ("user_id", "item_id", "type", "time", "value")


@dataclass(frozen=True)
class ItemSpans:
    """Ids of the items table, and when each item may be recommended."""

    ids: pa.Array  # (I,) without nulls; may be empty
    published: np.ndarray  # (I,) µs
    expires: np.ndarray  # (I,) µs
    available: np.ndarray  # (I,) bool
    deleted: bool  # whether items without a row may be recommended

    @classmethod
    def of(cls, items: pa.Table, recommend_deleted: bool = False) -> ItemSpans:
        known = items.filter(pc.is_valid(items["item_id"]))
        return cls(
            known["item_id"].combine_chunks(),
            read_times(known["published_at"], ALWAYS),
            read_times(known["expires_at"], NEVER),
            np.asarray(pc.fill_null(known["available"], True)).astype(bool),
            recommend_deleted,
        )

    def allow(self, row: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Return whether the items in rows (N,), -1 for others, are available at time (N,) µs."""
        if not len(self.ids):
            return np.ones(len(row), bool)
        at = np.maximum(row, 0)
        known = (self.published[at] <= time) & (time < self.expires[at]) & self.available[at]
        return np.where(row < 0, self.deleted, known)


@dataclass
class EventChecks:
    """Checks batches in NULLABLE_EVENTS; keeps counts, and EXAMPLES rows of each problem."""

    config: EventsConfig
    items: ItemSpans
    users: pa.Array  # ids of the users table; may be empty
    ordered: bool
    now_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    events: int = 0
    interactions: int = 0
    types: dict[str, int] = field(default_factory=dict)
    per_user: IdStatistics = field(default_factory=IdStatistics)
    per_item: IdStatistics = field(default_factory=IdStatistics)
    repeats: RepeatChecks = field(default_factory=RepeatChecks)
    pairs: DistinctCounter = field(default_factory=DistinctCounter)
    liked: HourSpans = field(default_factory=HourSpans)  # events of positive weight
    available_liked: HourSpans = field(default_factory=HourSpans)  # of these, with an item that was available
    without_value: dict[str, int] = field(default_factory=dict)  # events of types with weight_by_value
    problems: dict[str, Finding] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        for problem, mask in self._find_problems(batch):
            self._record(problem, mask, batch)
        complete = np.logical_and.reduce([np.asarray(pc.is_valid(batch[name])) for name in REQUIRED])
        good = drop_incomplete(batch)
        self.repeats.add(good, self.events + np.flatnonzero(complete) + 1)
        self.events += len(batch)
        good = drop_future(good, self.now_us) if self.ordered else good
        for entry in pc.value_counts(good["type"]).to_pylist():
            self.types[entry["values"]] = self.types.get(entry["values"], 0) + entry["counts"]
        seen = [name for name, kind in self.config.types.items() if kind.seen]
        acted = good.filter(pc.is_in(good["type"], pa.array(seen, pa.string())))
        self.interactions += len(acted)
        self._count_interactions(acted)

    def _count_interactions(self, acted: pa.RecordBatch) -> None:
        positive = self._weigh(acted) > 0
        self.per_user.add(acted["user_id"], acted["time"], positive)
        self.per_item.add(acted["item_id"], acted["time"], positive)
        self.pairs.add(hash_rows(acted["user_id"], acted["item_id"]))
        time = np.asarray(acted["time"].cast(pa.int64()))[positive]
        self.liked.add(time)
        row = np.asarray(pc.fill_null(pc.index_in(acted["item_id"], self.items.ids), -1))[positive]
        self.available_liked.add(time[self.items.allow(row, time)])
        for name in self._by_value:
            rows = pc.and_(pc.equal(acted["type"], name), pc.is_null(acted["value"]))
            self.without_value[name] = self.without_value.get(name, 0) + (pc.sum(rows).as_py() or 0)

    def _weigh(self, acted: pa.RecordBatch) -> np.ndarray:
        """Return the weights (N,) of events of configured types, by the type alone where its thresholds are wrong."""
        kinds = {
            name: kind.model_copy(update={"weight_by_value": ()}) if find_threshold_problem(name, kind) else kind
            for name, kind in self.config.types.items()
        }
        types = np.asarray(pc.index_in(acted["type"], pa.array(list(kinds), pa.string())))
        values = np.asarray(pc.fill_null(acted["value"], np.nan))
        return compute_event_weights(types, values, EventsConfig(types=kinds))

    @property
    def _by_value(self) -> list[str]:
        return [name for name, kind in self.config.types.items() if kind.weight_by_value]

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
            for rule in ID_RULES:
                yield rule.build_finding(name, "events"), rule.mark(batch[name])
        for key, described, table in (("item_id", self.items.ids, "items"), ("user_id", self.users, "users")):
            if len(described):
                message = f"events whose {key} is not in the {table} table: add the missing rows, or ignore this"
                missing = pc.and_(pc.is_valid(batch[key]), pc.invert(pc.is_in(batch[key], described)))
                yield Finding(f"unknown {key}", "note", message), np.asarray(missing)
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
        never = at >= YEAR_9999_US
        message = "events in the year 9999 or later: probably a missing time; correct the times"
        yield Finding("time that means never", "error", message), present & never
        message = "events in the future are left out: probably a wrong clock, time zone or unit; correct the times"
        yield Finding("time in the future", "warning", message), present & (at > self.now_us) & ~never

    def finish(self) -> None:
        """Make events in the future an error if they are more than the data step leaves out."""
        future = self.problems.get("time in the future")
        if future and future.count > FEW_FUTURE * (sum(self.types.values()) + future.count):
            future.severity = "error"
            future.message = f"more than {FEW_FUTURE:.0%} of the {future.message.replace(' are left out', '')}"

    def _record(self, problem: Finding, mask: np.ndarray, batch: pa.RecordBatch) -> None:
        if not mask.any():
            return
        found = self.problems.setdefault(problem.name, problem)
        found.count += int(mask.sum())
        for row in np.flatnonzero(mask)[: EXAMPLES - len(found.examples)].tolist():
            found.examples.append({"row": self.events + row + 1, **show_row(batch, row, SHOWN)})
