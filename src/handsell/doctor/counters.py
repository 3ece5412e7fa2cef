"""Counters of a stream; memory grows with users and items, not with events."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from handsell.core.units import HOUR_US

COMPACT_ROWS = 500_000
STATISTICS = ["id", "count", "first", "last", "positive"]


@dataclass
class IdStatistics:
    """Number of events, first and last time, and number of positive events per id."""

    _merged_table: pa.Table | None = None
    _open: list[pa.Table] = field(default_factory=list)

    def add(self, ids: pa.Array, time: pa.Array, positive: np.ndarray | None = None) -> None:
        ones = np.ones(len(ids), np.int64)
        positive = ones if positive is None else positive.astype(np.int64)
        columns = (ids, pa.array(ones), time, time, pa.array(positive))
        self._open.append(_merge(pa.table(dict(zip(STATISTICS, columns, strict=True)))))
        if sum(map(len, self._open)) > max(COMPACT_ROWS, len(self._merged_table or ())):
            self.table()

    def table(self) -> pa.Table:
        """Return one row (id, count, first, last, positive) per id, in order of appearance."""
        tables = ([self._merged_table] if self._merged_table is not None else []) + self._open
        if not tables:
            none, time = pa.array([], pa.int64()), pa.array([], pa.timestamp("us", "UTC"))
            columns = (pa.array([], pa.string()), none, time, time, none)
            tables = [pa.table(dict(zip(STATISTICS, columns, strict=True)))]
        self._merged_table, self._open = _merge(pa.concat_tables(tables)), []
        return self._merged_table


def _merge(table: pa.Table) -> pa.Table:
    sums = [("count", "sum"), ("first", "min"), ("last", "max"), ("positive", "sum")]
    total = table.group_by("id", use_threads=False).aggregate(sums)
    return total.select(["id", *("_".join(one) for one in sums)]).rename_columns(STATISTICS)


@dataclass
class DistinctCounter:
    """Counts distinct keys: exact up to `limit`, then estimated from a share of the hash space."""

    limit: int = 4_000_000
    rows: int = 0
    step: int = 1  # only hashes divisible by this are kept
    _kept: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    _open: list[np.ndarray] = field(default_factory=list)

    def add(self, hashes: np.ndarray) -> None:
        """`hashes` (N,) uint64."""
        self.rows += len(hashes)
        self._open.append(hashes[hashes % np.uint64(self.step) == 0])
        if sum(map(len, self._open)) > self.limit // 4:
            self._compact()

    @property
    def exact(self) -> bool:
        return self.step == 1

    @property
    def count(self) -> int:
        self._compact()
        return len(self._kept) * self.step

    @property
    def repeats(self) -> int:
        """Number of rows after the first of each key."""
        return max(self.rows - self.count, 0)

    def _compact(self) -> None:
        hashes = np.sort(np.concatenate([self._kept, *self._open]))  # np.unique would build a slow hash table
        first = np.ones(len(hashes), bool)
        first[1:] = hashes[1:] != hashes[:-1]
        self._kept, self._open = hashes[first], []
        while len(self._kept) > self.limit:
            self.step *= 2
            self._kept = self._kept[self._kept % np.uint64(self.step) == 0]


@dataclass
class HourSpans:
    """First and last time of the events in each hour since the epoch that has some."""

    spans: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, time: np.ndarray) -> None:
        """`time` (N,) int64 µs."""
        if not len(time):
            return
        time = np.sort(time)
        starts = np.flatnonzero(np.diff(time // HOUR_US, prepend=time[0] // HOUR_US - 1))
        lasts = np.append(starts[1:], len(time)) - 1
        for first, last in zip(time[starts].tolist(), time[lasts].tolist(), strict=True):
            known = self.spans.get(first // HOUR_US, (first, last))
            self.spans[first // HOUR_US] = min(known[0], first), max(known[1], last)

    def touches(self, begin: int, end: int) -> bool:
        """Return whether an event lies in [begin, end) µs, as far as the first and last of each hour tell."""
        return any(begin <= first < end or begin <= last < end for first, last in self.spans.values())
