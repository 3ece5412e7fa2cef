"""Filter expressions: `item.year >= 2015 and 'Jazz' in item.tags and not item.explicit` → a mask over the catalog.

An item passes only if the expression is known to be true: a null, of the item or of the user, never makes it pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.eligibility.columns import TEXTS, Column, find_kind
from handsell.eligibility.grammar import find_attributes, parse
from handsell.eligibility.plans import ITEM, USER, ColumnSource, User, build_plan, sample_user

CACHE_BYTES = 64 * 2**20  # of masks, per catalog


class Filters:
    """The filters of one catalog, from its metadata (I rows). Caches parsed expressions and masks."""

    def __init__(self, metadata: pa.Table):
        kinds = {name: find_kind(metadata.schema.field(name).type) for name in metadata.column_names}
        self.attributes: dict[str, str] = {name: kind for name, kind in kinds.items() if kind is not None}
        unread = {name: str(metadata.schema.field(name).type) for name, kind in kinds.items() if kind is None}
        self._column = lru_cache(None)(lambda name: Column.of(metadata[name]))
        items = ColumnSource(ITEM, self.attributes, self._column, unread)
        self._rows = len(metadata)
        self._plan = lru_cache(1_024)(lambda expression, user: build_plan(parse(expression), items, user))
        self.mask = lru_cache(int(np.clip(CACHE_BYTES // max(self._rows, 1), 8, 1_024)))(self._mask)

    def check(self, expression: str, user: Mapping[str, str] | None = None) -> None:
        """Check an expression; raises FilterError with the column, what was expected and received, and the attributes.

        user: attributes of users that it may read, with their kinds.
        """
        self._plan(expression, sample_user(user or {}))

    def prepare(self) -> None:
        """Read list columns, whose first use is slow."""
        for name, kind in self.attributes.items():
            if kind == TEXTS:
                self._column(name)

    def _mask(self, expression: str, user: User = ()) -> np.ndarray:
        """Return (I,) bool, read-only, the items that pass for this user. Raises FilterError."""
        passes, _ = self._plan(expression, user)()
        if len(passes) != self._rows:  # it reads only the user
            passes = np.repeat(passes, self._rows)
        passes.flags.writeable = False
        return passes


class LiveFilters(Filters):
    """Filters under live catalog changes: the bundle's masks, corrected at the changed and new items."""

    def __init__(self, before: Filters, snapshot: LiveSnapshot):
        super().__init__(snapshot.changed_metadata)
        self._before, self._changed, self._items = before, snapshot.changed, len(snapshot)
        self.mask = lru_cache(int(np.clip(CACHE_BYTES // max(self._items, 1), 8, 1_024)))(self._correct)

    def prepare(self) -> None:
        self._before.prepare()

    def _correct(self, expression: str, user: User = ()) -> np.ndarray:
        passes, before = np.empty(self._items, bool), self._before.mask(expression, user)
        passes[: len(before)] = before
        passes[self._changed] = self._mask(expression, user)
        passes.flags.writeable = False
        return passes


@lru_cache(1_024)
def find_user_attributes(expression: str) -> tuple[str, ...]:
    """Return the names of the user attributes that an expression reads; raises FilterError if it cannot be parsed."""
    read = (one.name for one in find_attributes(parse(expression)))
    return tuple(dict.fromkeys(name.removeprefix(USER) for name in read if name.startswith(USER)))


_FILTERS: WeakKeyDictionary[Snapshot, Filters] = WeakKeyDictionary()


def get_filters(snapshot: Snapshot) -> Filters:
    """Return the snapshot's Filters, one for each process, so that all stages share its masks."""
    found = _FILTERS.get(snapshot)
    if found is None:
        made = (
            LiveFilters(get_filters(snapshot.base), snapshot)
            if isinstance(snapshot, LiveSnapshot)
            else Filters(snapshot.metadata)
        )
        found = _FILTERS.setdefault(snapshot, made)
    return found
