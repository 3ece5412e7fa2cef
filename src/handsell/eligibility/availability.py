"""Which items are published, not expired and available at a time: found once for all times between two changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot

KEPT = 8  # spans whose items are remembered


@dataclass(frozen=True)
class Availability:
    """Service time moves on, and changes are few: requests of one span share one row, which is copied."""

    snapshot: Snapshot
    _rows: dict[int, np.ndarray] = field(default_factory=dict, compare=False)

    def at(self, time: np.ndarray) -> np.ndarray:
        """(B, I) bool for times (B,) µs; the caller's to change."""
        out = np.empty((len(time), len(self.snapshot)), bool)
        for b, span in enumerate(np.searchsorted(self._changes, time, side="right").tolist()):
            out[b] = self._row(span, int(time[b]))
        return out

    @cached_property
    def _changes(self) -> np.ndarray:
        """(N,) ascending µs at which an item is published or expires."""
        published, expires = self.snapshot.published, self.snapshot.expires
        return np.unique(np.concatenate([published[published != ALWAYS], expires[expires != NEVER]]))

    def _row(self, span: int, time: int) -> np.ndarray:
        rows = self._rows
        row = rows.get(span)
        if row is None:
            s = self.snapshot
            row = (s.published <= time) & (time < s.expires) & s.available
            while len(rows) >= KEPT:
                rows.pop(next(iter(rows)), None)
            rows[span] = row
        return row
