"""Whose events count for whom: visitors who became users, and people who were erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE
from handsell.core.hashing import hash_column
from handsell.data.event_key import replace_users
from handsell.events.store.interface import EventReader
from handsell.events.store.rows import hash_person

PAGE = 10_000
NAME = "people.parquet"


@dataclass(frozen=True)
class PersonRules:
    """Applied to all events before they are deduplicated, and to the users table."""

    owners: dict[str, str] = field(default_factory=dict)  # visitor id → user id
    erased: dict[str, int] = field(default_factory=dict)  # SHA-256 of the user id → time of the erasure, µs

    @classmethod
    def read(cls, store: EventReader) -> PersonRules:
        """Read all merged visitors and erasures of the event store."""
        owners: dict[str, str] = {}
        after = 0
        while page := store.read_identities(after, PAGE):
            owners |= {identity.visitor_id: identity.user_id for identity in page}
            after = page[-1].offset
        return cls(owners, {erasure.person: erasure.time for erasure in store.read_erasures()})

    def save(self, folder: Path) -> None:
        """Save the rules for tasks."""
        rows = [*((*pair, 0) for pair in self.owners.items()), *((p, None, t) for p, t in self.erased.items())]
        columns: Sequence[Sequence] = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        types = {"id": pa.string(), "owner": pa.string(), "time": pa.int64()}
        arrays = [pa.array(values, kind) for values, kind in zip(columns, types.values(), strict=True)]
        pq.write_table(pa.table(arrays, names=list(types)), folder / NAME)

    @classmethod
    def load(cls, folder: Path) -> PersonRules:
        """Load saved rules; none without a file."""
        owners: dict[str, str] = {}
        erased: dict[str, int] = {}
        if not (folder / NAME).is_file():
            return cls()
        for row in pq.read_table(folder / NAME).to_pylist():
            if row["owner"] is None:
                erased[row["id"]] = row["time"]
            else:
                owners[row["id"]] = row["owner"]
        return cls(owners, erased)

    def find_changes(self, before: PersonRules, users: Vocabulary) -> tuple[list[str], set[str]]:
        """Return which of the users are visitors with a new owner, and the SHA-256 of those who have been erased."""
        moved = [visitor for visitor, owner in self.owners.items() if before.owners.get(visitor) != owner]
        moved = [visitor for visitor, n in zip(moved, users.number(moved).tolist(), strict=True) if n != NONE]
        fresh = {person for person, time in self.erased.items() if before.erased.get(person) != time}
        return moved, fresh & set(map(hash_person, users.ids(np.arange(len(users))))) if fresh else set()

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give visitors' events to their users, and drop those of erased people from before the erasure.

        A person who comes back after the erasure begins a new history.
        """
        if self.erased:
            batch = batch.filter(pa.array(~self._find_erased(batch)))
        if not self.owners:
            return batch
        place = pc.index_in(batch["user_id"], pa.array(list(self.owners), pa.string()))
        moved = np.asarray(pc.is_valid(place))
        if not moved.any():
            return batch
        owner = pa.array(list(self.owners.values()), pa.string()).take(place)
        users = pc.coalesce(owner, batch["user_id"])
        for name in {"key", "alias"}.intersection(batch.schema.names):
            known = pc.fill_null(batch[name], 0).to_numpy()
            keys = replace_users(known, batch, users, hash_column(batch["event_id"]))
            batch = _replace(batch, name, pa.array(keys, mask=np.asarray(batch[name].is_null())))
        return _replace(batch, "user_id", users)

    def select_users(self, users: pa.Table) -> pa.Table:
        """Leave erased people and merged visitors out of the users table."""
        if not self.owners and not self.erased:
            return users
        gone = [user in self.owners or self.is_erased(user) for user in users["user_id"].to_pylist()]
        return users.filter(pa.array(~np.array(gone, bool)))

    def is_erased(self, user_id: str, since: int = -1) -> bool:
        """Return whether a person has been erased at or after a time."""
        return bool(self.erased) and self.erased.get(hash_person(user_id), -2) >= since

    def _find_erased(self, batch: pa.RecordBatch) -> np.ndarray:
        coded = batch["user_id"].dictionary_encode()
        until = [self.erased.get(hash_person(user_id), -(2**62)) for user_id in coded.dictionary.to_pylist()]
        return np.asarray(batch["time"].cast(pa.int64())) < np.array(until, np.int64)[coded.indices.to_numpy()]


def _replace(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    place = batch.schema.get_field_index(name)
    arrays = [*batch.columns[:place], values, *batch.columns[place + 1 :]]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
