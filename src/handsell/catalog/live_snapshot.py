"""The item snapshot of a bundle with the catalog changes that came after it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import SLICED, Snapshot, join_slices


class LiveSnapshot(Snapshot):
    """Changed items at their numbers, new items behind those of the bundle.

    Arrays are those of all items. What takes long to compute for a whole catalog is computed once for the bundle's
    snapshot and corrected at the changed and new items.
    """

    changed: np.ndarray  # (C,) int32 ascending, changed and new items
    changed_metadata: pa.Table  # their C rows, in the schema of the bundle's
    revision: np.ndarray  # (C,) int64, the batch of changes that changed each of them last
    deleted: np.ndarray  # (D,) int32 ascending

    @classmethod
    def on(cls, base: Snapshot, **fields: Any) -> LiveSnapshot:
        """Build a version from the bundle's snapshot and the fields in which it differs."""
        made = object.__new__(cls)
        same = {name: getattr(base, name) for name in ("version", "as_of", "value_names")}
        made.__dict__.update({"_base": base, **same, **fields})
        return made

    @property
    def base(self) -> Snapshot:
        return self.__dict__["_base"]

    def is_deleted(self, items: np.ndarray) -> np.ndarray:
        return np.isin(items, self.deleted) if len(self.deleted) else np.zeros(np.shape(items), bool)

    @cached_property
    def metadata(self) -> pa.Table:  # type: ignore[override]
        """All rows; a copy, for those that need a whole column."""
        return self.read_metadata(np.arange(len(self)))

    def read_metadata(self, items: np.ndarray) -> pa.Table:
        items = np.asarray(items, np.int64)
        place = np.minimum(np.searchsorted(self.changed, items), max(len(self.changed) - 1, 0))
        changed = self.changed[place] == items if len(self.changed) else np.zeros(len(items), bool)
        old, new = self.base.metadata, self.changed_metadata
        if len(items) <= SLICED:
            pairs = zip(items.tolist(), place.tolist(), changed.tolist(), strict=True)
            return join_slices(old, [new.slice(p, 1) if c else old.slice(i, 1) for i, p, c in pairs])
        rows = np.empty(len(items), np.int64)
        rows[~changed], rows[changed] = (
            np.arange(len(items) - changed.sum()),
            len(items) - changed.sum() + place[changed],
        )
        return pa.concat_tables([old.take(pa.array(items[~changed])), new]).take(pa.array(rows))

    def find_tagged(self, tags: np.ndarray) -> np.ndarray:
        found = np.zeros(len(self), bool)
        found[: len(self.base)] = self.base.find_tagged(tags[tags < len(self.base.tags)])
        place, row = self.item_tags.positions(self.changed)
        hit = np.isin(self.item_tags.values[place], tags)
        found[self.changed] = np.bincount(row[hit], minlength=len(self.changed)) > 0
        return found
