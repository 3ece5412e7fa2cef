"""What can be wrong with events, looked for batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.config import EventsConfig
from handsell.data.doctor.counters import Distinct, Tally, hashes
from handsell.data.doctor.doctor_report import EXAMPLES, Finding
from handsell.data.readers.base import REQUIRED, drop_incomplete

EPOCH_YEAR_US = 365 * DAY_US
SHOWN = ("user_id", "item_id", "type", "time", "value")


@dataclass
class Symptoms:
    """Fed with batches in NULLABLE_EVENTS; keeps counts, three examples of each problem, and nothing else."""

    config: EventsConfig
    items: pa.Array  # described ids; empty: the source describes none
    users: pa.Array
    ordered: bool
    now_us: int = field(default_factory=lambda: time.time_ns() // 1000)
    events: int = 0
    interactions: int = 0
    types: dict[str, int] = field(default_factory=dict)
    per_user: Tally = field(default_factory=Tally)
    per_item: Tally = field(default_factory=Tally)
    event_ids: Distinct = field(default_factory=Distinct)
    rows: Distinct = field(default_factory=Distinct)
    pairs: Distinct = field(default_factory=Distinct)
    hours: set[int] = field(default_factory=set)  # since the epoch, in which somebody acted
    problems: dict[str, Finding] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch) -> None:
        for problem, mask in self._look(batch):
            self._note(problem, mask, batch)
        self.events += len(batch)
        good = drop_incomplete(batch)
        for entry in pc.value_counts(good["type"]).to_pylist():
            self.types[entry["values"]] = self.types.get(entry["values"], 0) + entry["counts"]
        self.event_ids.add(hashes(good["event_id"]))
        self.rows.add(hashes(*(good[name] for name in ("user_id", "item_id", "type", "time"))))
        seen = [name for name, kind in self.config.types.items() if kind.seen]
        acted = good.filter(pc.is_in(good["type"], pa.array(seen, pa.string())))
        self.interactions += len(acted)
        self.per_user.add(acted["user_id"], acted["time"])
        self.per_item.add(acted["item_id"], acted["time"])
        self.pairs.add(hashes(acted["user_id"], acted["item_id"]))
        self.hours.update((acted["time"].cast(pa.int64()).to_numpy() // HOUR_US).tolist())

    def _look(self, batch: pa.RecordBatch) -> Iterator[tuple[Finding, np.ndarray]]:
        """Every problem with the rows (N,) bool that have it."""
        for name in REQUIRED:
            says = f"events without {name}: they are left out; fill the column, or map another one"
            yield Finding(f"null {name}", "warning", says), np.asarray(pc.is_null(batch[name]))
        known = pc.is_in(batch["type"], pa.array(self.config.names, pa.string()))
        yield (
            Finding(
                "unknown event type",
                "error",
                f"events of a type that [events.types] does not name (it names {', '.join(self.config.names)}): "
                "give it a weight there, or leave those events out",
            ),
            np.asarray(pc.and_(pc.is_valid(batch["type"]), pc.invert(known))),
        )
        yield from self._times(batch)
        for key, described, table in (("item_id", self.items, "items"), ("user_id", self.users, "users")):
            if len(described):
                says = f"events whose {key} is not in the {table} table: nothing is known of it but its events"
                missing = pc.and_(pc.is_valid(batch[key]), pc.invert(pc.is_in(batch[key], described)))
                yield Finding(f"unknown {key}", "warning" if key == "item_id" else "note", says), np.asarray(missing)
        share = np.asarray(pc.fill_null(batch["propensity"], 1.0))
        says = "impressions whose propensity is not above 0 and at most 1: estimates that use it would be wrong"
        yield Finding("bad propensity", "warning", says), ~((share > 0) & (share <= 1))

    def _times(self, batch: pa.RecordBatch) -> Iterator[tuple[Finding, np.ndarray]]:
        if not self.ordered:
            return
        present = np.asarray(pc.is_valid(batch["time"]))
        at = np.asarray(pc.fill_null(batch["time"].cast(pa.int64()), 0))
        says = "events in 1970 or before: a missing time stored as 0, or another unit (seconds, ms, µs)? Correct them"
        yield Finding("time at the epoch", "error", says), present & (at < EPOCH_YEAR_US)
        says = "events later than now: a wrong zone or unit? They would push the test window into emptiness"
        yield Finding("time in the future", "error", says), present & (at > self.now_us + DAY_US)

    def _note(self, problem: Finding, mask: np.ndarray, batch: pa.RecordBatch) -> None:
        if not mask.any():
            return
        kept = self.problems.setdefault(problem.name, problem)
        kept.count += int(mask.sum())
        for row in np.flatnonzero(mask)[: EXAMPLES - len(kept.examples)].tolist():
            values = {name: batch[name][row].as_py() for name in SHOWN}
            kept.examples.append(
                {"row": self.events + row + 1, **{n: str(v) for n, v in values.items() if v is not None}}
            )
