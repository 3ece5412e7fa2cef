"""What was sent to the event store and what it acknowledged, and the comparison with what it holds."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from handsell.events.store.interface import EventReader

PART = 20_000


@dataclass(slots=True)
class Ledger:
    """Ids of events; a client sends what was not acknowledged again, so that it loses nothing itself."""

    acknowledged: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)  # sent and not acknowledged
    deliveries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, what: str, ids: Sequence[str]) -> None:
        """Record ids that were `sent` or `stored`."""
        with self.lock:
            if what == "sent":
                self.deliveries += len(ids)
                self.waiting.update(set(ids) - self.acknowledged)
            else:
                self.acknowledged.update(ids)
                self.waiting.difference_update(ids)

    def list_waiting(self) -> list[str]:
        with self.lock:
            return sorted(self.waiting)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Acknowledged events and what became of them."""

    acknowledged: int
    lost: int  # acknowledged and not stored
    twice: int  # stored more than once
    stored: int
    disordered: int  # offsets that do not rise

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.twice or self.disordered)


def compare_with_store(ledger: Ledger, reader: EventReader) -> Comparison:
    """Compare the acknowledged events with the stored ones."""
    stored: Counter[str] = Counter()
    disordered = last = 0
    for offset, event_id in read_ids(reader):
        disordered += offset <= last
        last = offset
        stored[event_id] += 1
    lost = sum(id not in stored for id in ledger.acknowledged)
    twice = sum(count > 1 for count in stored.values())
    return Comparison(len(ledger.acknowledged), lost, twice, sum(stored.values()), disordered)


def read_ids(reader: EventReader) -> Iterator[tuple[int, str]]:
    """Yield offset and event id of all stored events."""
    after = 0
    while (columns := reader.scan(after, PART))["offset"]:
        yield from zip(columns["offset"], columns["event_id"], strict=True)
        after = columns["offset"][-1]
