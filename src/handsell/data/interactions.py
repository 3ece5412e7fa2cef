"""The numbered event log as arrays, from which models are fitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.core.offsets import mark_run_starts, offsets_from_counts
from handsell.data.late_scipy import sparse

NUMBERED = pa.schema(
    [
        pa.field("user", pa.int32(), nullable=False),
        pa.field("item", pa.int32(), nullable=False),
        pa.field("type", pa.int8(), nullable=False),  # index into Config.events.names
        pa.field("time", pa.int64(), nullable=False),  # µs; strictly increasing within a user
        pa.field("weight", pa.float32(), nullable=False),  # from Config.events
        pa.field("position", pa.int16()),
        pa.field("propensity", pa.float32()),
        pa.field("surface", pa.string()),
        pa.field("recommendation_id", pa.string()),
    ]
)
COLUMNS = ("user", "item", "type", "time", "weight")


@dataclass(frozen=True, slots=True)
class Interactions:
    """N events sorted by user, then time; parallel arrays."""

    user: np.ndarray  # (N,) int32
    item: np.ndarray  # (N,) int32
    type: np.ndarray  # (N,) int8
    time: np.ndarray  # (N,) int64 µs
    weight: np.ndarray  # (N,) float32
    n_users: int
    n_items: int

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def read(cls, parts: Iterable[Path], n_users: int, n_items: int) -> Interactions:
        """Read Parquet parts in schema NUMBERED, whose columns of other names are ignored.

        Where all events of a user are in one part, as the data step writes them, memory is that of the result and of
        one part: events are put in their places, and not sorted as a whole.
        """
        parts = list(parts)
        counts, once = _count_events(parts, n_users)
        if not once:
            return cls.from_table(pa.concat_tables([_read_columns(part) for part in parts]), n_users, n_items)
        starts, size = offsets_from_counts(counts), int(counts.sum())
        columns = {name: np.empty(size, NUMBERED.field(name).type.to_pandas_dtype()) for name in COLUMNS}
        for part in parts:
            some = cls.from_table(_read_columns(part), n_users, n_items)
            first = mark_run_starts(some.user)
            rank = np.arange(len(some)) - np.maximum.accumulate(np.where(first, np.arange(len(some)), 0))
            place = starts[some.user] + rank
            for name, column in columns.items():
                column[place] = getattr(some, name)
        return cls(**columns, n_users=n_users, n_items=n_items)

    @classmethod
    def from_table(cls, table: pa.Table, n_users: int, n_items: int) -> Interactions:
        arrays = [table[c].to_numpy() for c in COLUMNS]
        order = np.lexsort((arrays[3], arrays[0]))
        user, item, kind, time, weight = (a[order] for a in arrays)
        return cls(user, item, kind, time, weight, n_users, n_items)

    def where(self, mask: np.ndarray | slice) -> Interactions:
        return Interactions(
            self.user[mask], self.item[mask], self.type[mask], self.time[mask], self.weight[mask],
            self.n_users, self.n_items,
        )  # fmt: skip

    @property
    def positives(self) -> Interactions:
        """The events of positive weight."""
        return self.where(self.weight > 0)

    @property
    def user_offsets(self) -> np.ndarray:
        """(n_users + 1,) int64: events of user u are rows offsets[u]:offsets[u + 1]."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1))

    def matrix(self) -> sparse.csr_matrix:
        """Return the sums of weights, (n_users, n_items) float32."""
        shape = (self.n_users, self.n_items)
        return sparse.csr_matrix((self.weight, (self.user, self.item)), shape=shape, dtype=np.float32)


def _read_columns(part: Path) -> pa.Table:
    return pq.read_table(part, columns=list(COLUMNS))


def _count_events(parts: Iterable[Path], n_users: int) -> tuple[np.ndarray, bool]:
    """Count the events of each user (U,) int64; return also whether each user's are in one part."""
    counts, once = np.zeros(n_users, np.int64), True
    for part in parts:
        some = np.bincount(pq.read_table(part, columns=["user"])["user"].to_numpy(), minlength=n_users)
        once &= not (some.astype(bool) & (counts > 0)).any()
        counts += some
    return counts, once
