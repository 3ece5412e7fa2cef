"""Apply catalog changes to an item snapshot: one new version for each batch of changes.

A new item's number is the number of the bundle's items plus its place in the order of first puts; new creators and
tags are numbered likewise. So replicas that have read the same changes have the same numbers, however they batch them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from handsell.catalog.growing_array import GrowingArray, GrowingRagged
from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.live_vocabulary import LiveVocabulary
from handsell.catalog.metadata_values import build_column
from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.core.batches import NONE, Ragged


class ItemChange(Protocol):
    """A change of an item, such as handsell.events.store.interface.CatalogChange."""

    @property
    def id(self) -> str: ...
    @property
    def action(self) -> str: ...  # put, patch or delete
    @property
    def fields(self) -> Mapping[str, Any]: ...


@dataclass(slots=True)
class _Item:
    """What a batch of changes does to one item."""

    fields: dict[str, Any] = field(default_factory=dict)
    whole: bool = False  # `fields` are all fields of the item
    deleted: bool | None = None  # None: as before

    def add(self, change: ItemChange) -> None:
        if change.action == "delete":
            self.deleted = True
        elif change.action == "put":
            self.fields, self.whole, self.deleted = dict(change.fields), True, False
        else:
            self.fields |= change.fields

    def reads(self, name: str) -> bool:
        return self.whole or name in self.fields


class LiveItems:
    """The newest version of a bundle's snapshot; versions share what they have in common."""

    def __init__(self, base: Snapshot, untouched: np.ndarray, columns: Mapping[str, int]):
        """untouched (Fi,): values of a new item; columns: metadata column → its place in the values."""
        self.snapshot: Snapshot = base
        self._untouched, self._columns = untouched, columns
        self._items, self._creators, self._tags = (LiveVocabulary.on(v) for v in (base.items, base.creators, base.tags))
        self._creator, self._published = GrowingArray(base.creator), GrowingArray(base.published)
        self._expires, self._available = GrowingArray(base.expires), GrowingArray(base.available)
        self._values, self._item_tags = GrowingArray(base.values), GrowingRagged(base.item_tags)
        self._deleted: set[int] = set()
        self._batch = 0

    def apply(self, changes: Sequence[ItemChange]) -> Snapshot:
        """Apply changes in their order; a patch or delete of an id that was never put is ignored."""
        before = len(self._items)
        found = self._merge(changes)
        if not found:
            return self.snapshot
        number = np.array(sorted(found), np.int32)
        items = [found[n] for n in number.tolist()]
        self._deleted.update(n for n, item in found.items() if item.deleted)
        self._deleted.difference_update([n for n, item in found.items() if item.deleted is False])
        self._set_times(number, items, before)
        self._set_creators(number, items, before)
        self._set_tags(number, items, before)
        self._set_values(number, items, before)
        self._batch += 1
        changed, revision, metadata = self._set_metadata(number, items, before)
        self.snapshot = LiveSnapshot.on(
            self.snapshot.base, items=self._items, creators=self._creators, tags=self._tags,
            creator=self._creator.view, item_tags=self._item_tags.view, published=self._published.view,
            expires=self._expires.view, available=self._available.view, values=self._values.view,
            changed=changed, revision=revision, changed_metadata=metadata,
            deleted=np.array(sorted(self._deleted), np.int32),
        )  # fmt: skip
        return self.snapshot

    def _merge(self, changes: Sequence[ItemChange]) -> dict[int, _Item]:
        """Number new items, creators and tags; return what the batch does to each item, by number."""
        put = [change.id for change in changes if change.action == "put"]
        self._items = self._items.add(put)
        numbers = self._items.number([change.id for change in changes]).tolist()
        found: dict[int, _Item] = {}
        first = len(self.snapshot)
        for number, change in zip(numbers, changes, strict=True):
            if number == NONE or (number >= first and number not in found and change.action != "put"):
                continue
            found.setdefault(number, _Item()).add(change)
            self._creators = self._creators.add(read_texts(change.fields.get("creators")))
            self._tags = self._tags.add(read_texts(change.fields.get("tags")))
        return found

    def _set_times(self, number: np.ndarray, items: Sequence[_Item], before: int) -> None:
        for array, name, unknown in ((self._published, "published_at", ALWAYS), (self._expires, "expires_at", NEVER)):
            times = [item.fields.get(name) for item in items]
            self._set(array, number, items, name, [unknown if t is None else int(t) for t in times], before)
        fresh = [item.fields.get("available") is not False for item in items]
        old = self._available.view
        for place, (n, item) in enumerate(zip(number.tolist(), items, strict=True)):
            if not item.reads("available"):
                fresh[place] = bool(old[n])
            fresh[place] &= n not in self._deleted
        old_rows = number < before
        values = np.array(fresh, bool)
        differs = values[old_rows] != old[number[old_rows]]
        self._available.replace(number[old_rows][differs], values[old_rows][differs])
        self._available.append(values[~old_rows])

    def _set(
        self, array: GrowingArray, number: np.ndarray, items: Sequence[_Item], name: str, values: Sequence, before: int
    ) -> None:
        """Set a column where the changes name it; append those of new items."""
        rows = np.array(values, array.view.dtype)
        old = number < before
        named = np.array([item.reads(name) for item in items], bool) & old
        named[named] = array.view[number[named]] != rows[named]
        array.replace(number[named], rows[named])
        array.append(rows[~old])

    def _set_creators(self, number: np.ndarray, items: Sequence[_Item], before: int) -> None:
        first = [next(iter(read_texts(item.fields.get("creators"))), None) for item in items]
        known = self._creators.number([text for text in first if text is not None]).tolist()
        values = [NONE if text is None else known.pop(0) for text in first]
        self._set(self._creator, number, items, "creators", values, before)

    def _set_tags(self, number: np.ndarray, items: Sequence[_Item], before: int) -> None:
        rows = [self._tags.number(list(dict.fromkeys(read_texts(item.fields.get("tags"))))) for item in items]
        named = [
            i for i, item in enumerate(items)
            if number[i] < before and item.reads("tags")
            and not np.array_equal(self._item_tags.view.row(int(number[i])), rows[i])
        ]  # fmt: skip
        self._item_tags.replace(number[named], Ragged.from_rows([rows[i] for i in named]))
        self._item_tags.append(Ragged.from_rows([row for row, n in zip(rows, number, strict=True) if n >= before]))

    def _set_values(self, number: np.ndarray, items: Sequence[_Item], before: int) -> None:
        rows = np.tile(self._untouched, (len(items), 1)).astype(np.float32)
        at, values = [], []
        for place, (n, item) in enumerate(zip(number.tolist(), items, strict=True)):
            for name, column in self._columns.items():
                if item.reads(name):
                    rows[place, column] = read_number(item.fields.get(name))
                    if n < before:
                        at.append((n, column))
                        values.append(rows[place, column])
        if at:
            row, column = np.array(at, np.int64).T
            fresh = np.array(values, np.float32)
            differs = ~np.isclose(self._values.view[row, column], fresh, rtol=0, atol=0, equal_nan=True)
            self._values.replace((row[differs], column[differs]), fresh[differs])
        self._values.append(rows[number >= before])

    def _set_metadata(
        self, number: np.ndarray, items: Sequence[_Item], before: int
    ) -> tuple[np.ndarray, np.ndarray, pa.Table]:
        """Return all changed and new items, the batches that changed them last, and their metadata."""
        snapshot = self.snapshot
        old = snapshot.read_metadata(number[number < before])
        ids = self._items.ids(number)
        rows = [{**item.fields, "item_id": i} for i, item in zip(ids, items, strict=True)]
        for n, row in zip(number.tolist(), rows, strict=True):
            if n in self._deleted:
                row["available"] = False
        columns = []
        for f in old.schema:
            named = np.array([f.name in row or item.whole for row, item in zip(rows, items, strict=True)], bool)
            columns.append(build_column(old[f.name], f.type, named, [row.get(f.name) for row in rows]))
        batch = pa.Table.from_arrays(columns, schema=old.schema)
        if not isinstance(snapshot, LiveSnapshot):
            return number, np.full(len(number), self._batch), batch
        every = np.concatenate([snapshot.changed, number])
        unique, last = np.unique(every[::-1], return_index=True)
        both = pa.concat_tables([snapshot.changed_metadata, batch])
        revision = np.concatenate([snapshot.revision, np.full(len(number), self._batch)])
        kept = len(every) - 1 - last
        return unique, revision[kept], both.take(pa.array(kept)).combine_chunks()


def read_texts(value: Any) -> Iterable[str]:
    """Return the texts of a list, which may be null."""
    return [text for text in value or () if text is not None]


def read_number(value: Any) -> float:
    """Return a numeric feature's value, NaN for null and for what is no number."""
    try:
        return float("nan") if value is None else float(value)
    except (TypeError, ValueError):
        return float("nan")
