"""Items that are published, not expired and available at a time; computed once for each span between two changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

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
            while len(rows) >= CACHED_SPANS:
                rows.pop(next(iter(rows)), None)
            rows[span] = row
        return row
