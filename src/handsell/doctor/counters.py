"""Counters of a stream; memory grows with users and items, not with events."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.hashing import GOLDEN, finalize

COMPACT_ROWS = 500_000
POWERS = np.random.default_rng(20_260_630).integers(1, 2**63, 4096, dtype=np.uint64) | np.uint64(1)


@dataclass
class IdStatistics:
    """Number of events, first and last time per id."""

    _merged_table: pa.Table | None = None
    _open: list[pa.Table] = field(default_factory=list)

    def add(self, ids: pa.Array, time: pa.Array) -> None:
        ones = pa.array(np.ones(len(ids), np.int64))
        self._open.append(_merge(pa.table({"id": ids, "count": ones, "first": time, "last": time})))
        if sum(map(len, self._open)) > max(COMPACT_ROWS, len(self._merged_table or ())):
            self.table()

    def table(self) -> pa.Table:
        """Return one row (id, count, first, last) per id, in order of appearance."""
        tables = ([self._merged_table] if self._merged_table is not None else []) + self._open
        if not tables:
            none, time = pa.array([], pa.int64()), pa.array([], pa.timestamp("us", "UTC"))
            tables = [pa.table({"id": pa.array([], pa.string()), "count": none, "first": time, "last": time})]
        self._merged_table, self._open = _merge(pa.concat_tables(tables)), []
        return self._merged_table


def _merge(table: pa.Table) -> pa.Table:
    total = table.group_by("id", use_threads=False).aggregate([("count", "sum"), ("first", "min"), ("last", "max")])
    return total.select(["id", "count_sum", "first_min", "last_max"]).rename_columns(["id", "count", "first", "last"])


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
        self._kept, self._open = np.unique(np.concatenate([self._kept, *self._open])), []
        while len(self._kept) > self.limit:
            self.step *= 2
            self._kept = self._kept[self._kept % np.uint64(self.step) == 0]


def hash_rows(*columns: pa.Array) -> np.ndarray:
    """Hash rows of text, number or time columns to (N,) uint64; nulls hash like empty text or 0."""
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        own = _hash_text(column) if pa.types.is_string(column.type) else _hash_numbers(column)
        total = finalize(total * GOLDEN + own)
    return total


def _hash_text(text: pa.Array) -> np.ndarray:
    """Hash each value as a polynomial of its bytes, by differences of one running sum."""
    text = pa.concat_arrays([pc.fill_null(text, "")])  # one buffer, offset 0
    if not len(text):
        return np.zeros(0, np.uint64)
    offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1].astype(np.int64)
    data = text.buffers()[2]
    raw = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    lengths = np.diff(offsets)
    place = np.arange(len(raw)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    terms = (raw.astype(np.uint64) + np.uint64(1)) * POWERS[place % len(POWERS)]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    at = offsets - offsets[0]
    return sums[at[1:]] - sums[at[:-1]] + lengths.astype(np.uint64)


def _hash_numbers(column: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(column.cast(pa.int64()), 0)).astype(np.uint64)
