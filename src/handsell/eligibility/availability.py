"""Items that are published, not expired and available at a time; computed once for each span between two changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot

CACHED_SPANS = 8  # cached spans


@dataclass(frozen=True)
class Availability:
    """Caches one row of items for each span, as most requests fall in the same one."""

    snapshot: Snapshot
    _rows: dict[int, np.ndarray] = field(default_factory=dict, compare=False)

    def at(self, time: np.ndarray) -> np.ndarray:
        """Return (B, I) bool for times (B,) µs, a new array."""
        out = np.empty((len(time), len(self.snapshot)), bool)
        for b, at in enumerate(time.tolist()):
            out[b] = self.find_row(at)
        return out

    def find_row(self, time: int) -> np.ndarray:
        """Return (I,) bool at one time, the cached array."""
        return self._row(self.find_span(time), time)

    def find_span(self, time: int) -> int:
        """Return the number of the span between two changes in which a time lies."""
        return int(np.searchsorted(self._changes, time, side="right"))

    @cached_property
    def _changes(self) -> np.ndarray:
        """(N,) ascending µs at which an item is published or expires."""
        return find_change_times(self.snapshot.published, self.snapshot.expires)

    def _row(self, span: int, time: int) -> np.ndarray:
        rows = self._rows
        row = rows.get(span)
        if row is None:
            s = self.snapshot
            row = (s.published <= time) & (time < s.expires) & s.available
            while len(rows) >= CACHED_SPANS:
                rows.pop(next(iter(rows)), None)
            rows[span] = row
        return row


class LiveAvailability(Availability):
    """Availability under live catalog changes: the bundle's row, corrected at the changed and new items."""

    def __init__(self, snapshot: LiveSnapshot, before: Availability):
        """before: of the bundle's snapshot."""
        super().__init__(snapshot)
        self.__dict__["before"], self.__dict__["_corrected"] = before, {}

    before: Availability
    _corrected: dict[tuple[int, int], np.ndarray]

    def find_row(self, time: int) -> np.ndarray:
        rows, s = self._corrected, self.snapshot
        assert isinstance(s, LiveSnapshot)
        key = self.before.find_span(time), self.find_span(time)
        row = rows.get(key)
        if row is None:
            row, changed = np.empty(len(s), bool), s.changed
            row[: len(s.base)] = self.before.find_row(time)
            row[changed] = (s.published[changed] <= time) & (time < s.expires[changed]) & s.available[changed]
            while len(rows) >= CACHED_SPANS:
                rows.pop(next(iter(rows)), None)
            rows[key] = row
        return row

    @cached_property
    def _changes(self) -> np.ndarray:
        """(N,) ascending µs at which a changed or new item is published or expires."""
        s = self.snapshot
        assert isinstance(s, LiveSnapshot)
        return find_change_times(s.published[s.changed], s.expires[s.changed])


def find_change_times(published: np.ndarray, expires: np.ndarray) -> np.ndarray:
    """Return the distinct times at which availability changes, ascending."""
    return np.unique(np.concatenate([published[published != ALWAYS], expires[expires != NEVER]]))
