"""Checks of repeated events: equal ones count once, and an event_id may be that of several different events."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.hashing import finalize, hash_rows
from handsell.data.event_key import EVENT_KEY, compute_event_keys
from handsell.doctor.counters import DistinctCounter
from handsell.doctor.doctor_report import EXAMPLES, Finding, Severity
from handsell.doctor.id_checks import show_row

SHOWN = ("event_id", "user_id", "item_id", "type", "time", "value")
SEARCHED = 500_000  # events in which examples are searched


@dataclass
class RepeatChecks:
    """Counts of distinct keys, contents and ids of events, and examples of repeated ones."""

    keys: DistinctCounter = field(default_factory=DistinctCounter)
    contents: DistinctCounter = field(default_factory=DistinctCounter)  # key and value
    facts: DistinctCounter = field(default_factory=DistinctCounter)  # key without the event_id
    ids: DistinctCounter = field(default_factory=DistinctCounter)  # event_id, where there is one
    keys_with_id: DistinctCounter = field(default_factory=DistinctCounter)
    searched: int = 0
    _first: dict[str, tuple[np.ndarray, ...]] = field(default_factory=dict)  # groups, their first contents and rows
    _examples: dict[str, list[dict]] = field(default_factory=dict)

    def add(self, batch: pa.RecordBatch, rows: np.ndarray) -> None:
        """Add a batch in schema EVENTS; rows (N,) are its row numbers in the source."""
        keys = compute_event_keys(batch).view(np.uint64)
        value = np.ascontiguousarray(pc.fill_null(batch["value"], np.nan), np.float32).view(np.uint32)
        contents = finalize(keys ^ finalize(value.astype(np.uint64)))
        facts, ids = hash_rows(*(batch[name] for name in EVENT_KEY[:-1])), hash_rows(batch["event_id"])
        given = np.asarray(pc.greater(pc.binary_length(pc.fill_null(batch["event_id"], "")), 0))
        self.keys.add(keys)
        self.contents.add(contents)
        self.facts.add(facts)
        self.ids.add(ids[given])
        self.keys_with_id.add(keys[given])
        if self.searched < SEARCHED:
            self.searched += len(batch)
            self._find_examples("duplicate events", keys, keys, batch, rows, same=True)
            self._find_examples("duplicates with another value", keys, contents, batch, rows)
            self._find_examples("equal events", facts, keys, batch, rows)
            self._find_examples("repeated event_id", ids, keys, batch, rows, given)

    def _find_examples(
        self, name: str, group: np.ndarray, content: np.ndarray, batch: pa.RecordBatch, rows: np.ndarray,
        among: np.ndarray | None = None, same: bool = False,
    ) -> None:  # fmt: skip
        """Keep rows of the same group as an earlier row whose content is different, or the same with `same`."""
        found = self._examples.setdefault(name, [])
        if len(found) >= EXAMPLES:
            return
        places = np.arange(len(batch)) if among is None else np.flatnonzero(among)
        new = (group[places], content[places], rows[places])
        before = self._first.get(name, tuple(column[:0] for column in new))
        groups, contents, numbers = (np.concatenate(pair) for pair in zip(before, new, strict=True))
        unique, first, which = np.unique(groups, return_index=True, return_inverse=True)
        like = first[which]
        repeated = (like != np.arange(len(groups))) & ((contents == contents[like]) == same)
        for at in np.flatnonzero(repeated)[: EXAMPLES - len(found)].tolist():
            place = int(places[at - len(before[0])])
            row = {"row": int(numbers[at]), "like_row": int(numbers[like[at]])}
            found.append({**row, **show_row(batch, place, SHOWN)})
        self._first[name] = (unique, contents[first], numbers[first])

    def find(self) -> list[Finding]:
        """Return what was found."""
        about = "" if self.keys.exact else " (estimated from a sample)"
        counts = {
            "duplicate events": self.keys.repeats,
            "duplicates with another value": self.contents.count - self.keys.count,
            "equal events": self.keys.count - self.facts.count,
            "repeated event_id": self.keys_with_id.count - self.ids.count,
        }
        return [
            Finding(name, severity, message.format(about=about), counts[name], self._examples.get(name, []))
            for name, (severity, message) in FINDINGS.items()
            if counts[name] > 0
        ]


FINDINGS: dict[str, tuple[Severity, str]] = {
    "duplicate events": (
        "warning",
        "events with the user, item, type, time and event_id of an earlier one{about}: they count once; if they are "
        "different events, map a column that tells them apart to event_id",
    ),
    "duplicates with another value": (
        "warning",
        "of these, with another value than the first one{about}: the first value counts; correct the others, or map a "
        "column that tells them apart to event_id",
    ),
    "repeated event_id": (
        "warning",
        "events with the event_id of an earlier one, but another user, item, type or time{about}: each counts, like "
        "the lines of an order; if they are repeated deliveries of one event, correct the columns that differ",
    ),
    "equal events": (
        "note",
        "events equal to an earlier one in user, item, type and time{about}, with another event_id or none: each "
        "counts; if they are repeated deliveries of one event, do not map event_id",
    ),
}
