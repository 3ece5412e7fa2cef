"""Today's impressions of all replicas, read from the impression log as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from handsell.core.batches import NONE
from handsell.core.hashing import hash_unit
from handsell.core.units import DAY_US, MINUTE_US
from handsell.events.store.interface import EventReader
from handsell.reranking.rules.counts import ImpressionCounts, ShownSlates, count_impressions, local_days
from handsell.reranking.rules.pacing import Pacing, SharedCounts

SETTLED_S = 0.4  # after which a served slate is in the log: queued 0.1 s at most, then committed
DISORDER_US = MINUTE_US  # reading starts this much before the day, as slates are not logged in order of time
ROWS = 2_000  # read at a time

SlateRow = tuple[int, int, str | None, str, list[str]]  # of EventReader.read_slates


class SharedCountReader:
    """Continues from the offset of the last reading; the first reading starts `before_us` earlier, at least a day."""

    def __init__(self, pacing: Pacing, reader: EventReader, surfaces: Sequence[str], before_us: int = DAY_US):
        self._pacing, self._reader, self._before_us = pacing, reader, max(before_us, DAY_US)
        self._surface = {name: code for code, name in enumerate(surfaces)}
        self._counts, self._day = ImpressionCounts.zero(len(pacing)), np.full(len(pacing), -1)
        self._offset: int | None = None

    def read(self, now: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Bring `pacing.shared` up to date; now µs by the service clock. Raises EventStoreError."""
        if not len(self._pacing):
            return
        cut = clock() - SETTLED_S
        if self._offset is None:
            self._offset = self._reader.find_slate_offset(now - self._before_us - DISORDER_US)
        self._start_new_days(now)
        while rows := self._reader.read_slates(self._offset, ROWS):
            self._offset = rows[-1][0]
            if known := [row for row in rows if row[3] in self._surface]:
                self._add(known)
        self._pacing.shared = SharedCounts(self._counts, self._day, cut)

    def _add(self, rows: Sequence[SlateRow]) -> None:
        ruleset = self._pacing.ruleset
        lengths = [len(ids) for *_, ids in rows]
        numbers = ruleset.snapshot.items.number([i for *_, ids in rows for i in ids])
        item = np.full((len(rows), max(lengths, default=0)), NONE, np.int32)
        item[np.arange(item.shape[1]) < np.array(lengths)[:, None]] = numbers
        seen = ShownSlates(
            item,
            np.array([row[1] for row in rows], np.int64),
            np.array([self._surface[row[3]] for row in rows], np.int8),
            np.array([hash_unit(row[2]) for row in rows], np.uint64),
        )
        self._start_new_days(int(seen.time.max()))
        self._count(seen)

    def _count(self, seen: ShownSlates) -> None:
        counted = count_impressions(self._pacing.ruleset, seen, self._day, self._pacing.since)
        self._counts = self._counts + counted

    def _start_new_days(self, now: int) -> None:
        today = local_days(self._pacing.ruleset, np.array([now], np.int64))[:, 0]
        if (today > self._day).any():
            self._counts = self._counts.where(today <= self._day)
            self._day = np.maximum(self._day, today)
