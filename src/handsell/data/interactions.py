"""The numbered event log as arrays, from which models are fitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

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
        """Read Parquet parts in schema NUMBERED; other columns are ignored."""
        columns = ["user", "item", "type", "time", "weight"]
        tables = [pq.read_table(part, columns=columns) for part in parts]
        table = pa.concat_tables(tables) if tables else NUMBERED.empty_table().select(columns)
        return cls.from_table(table, n_users, n_items)

    @classmethod
    def from_table(cls, table: pa.Table, n_users: int, n_items: int) -> Interactions:
        arrays = [table[c].to_numpy() for c in ("user", "item", "type", "time", "weight")]
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
