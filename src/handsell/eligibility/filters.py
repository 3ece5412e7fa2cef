"""Filter expressions: `item.year >= 2015 and 'Jazz' in item.tags and not item.explicit` → a mask over the catalog.

An item is kept only where the whole is surely true: what is not known, of it or of the user, never lets it through.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import Snapshot
from handsell.eligibility.columns import TEXTS, Column, kind_of
from handsell.eligibility.grammar import attributes, parse
from handsell.eligibility.plans import ITEM, USER, ColumnSource, User, planned, samples

CACHE_BYTES = 64 * 2**20  # of masks, per catalog


class Filters:
    """The filters of one catalog, by its metadata (I rows); checked expressions and masks are kept, newest first."""

    def __init__(self, metadata: pa.Table):
        kinds = {name: kind_of(metadata.schema.field(name).type) for name in metadata.column_names}
        self.attributes: dict[str, str] = {name: kind for name, kind in kinds.items() if kind is not None}
        unread = {name: str(metadata.schema.field(name).type) for name, kind in kinds.items() if kind is None}
        self._column = lru_cache(None)(lambda name: Column.of(metadata[name]))
        items = ColumnSource(ITEM, self.attributes, self._column, unread)
        self._rows = len(metadata)
        self._plan = lru_cache(1_024)(lambda expression, user: planned(parse(expression), items, user))
        self.mask = lru_cache(int(np.clip(CACHE_BYTES // max(self._rows, 1), 8, 1_024)))(self._mask)

    def check(self, expression: str, user: Mapping[str, str] | None = None) -> None:
        """Raises FilterError with the column, what was expected, what was received, and which attributes there are.

        user: attributes of users that it may read → their kinds.
        """
        self._plan(expression, samples(user or {}))

    def prepare(self) -> None:
        """Read the columns whose first use would keep a caller waiting."""
        for name, kind in self.attributes.items():
            if kind == TEXTS:
                self._column(name)

    def _mask(self, expression: str, user: User = ()) -> np.ndarray:
        """(I,) bool, read-only: the items that pass for this user. Raises FilterError."""
        passes, _ = self._plan(expression, user)()
        if len(passes) != self._rows:  # nothing but the user is read
            passes = np.repeat(passes, self._rows)
        passes.flags.writeable = False
        return passes


@lru_cache(1_024)
def user_attributes(expression: str) -> tuple[str, ...]:
    """Names of the user's attributes that an expression reads; raises FilterError where it cannot be parsed."""
    read = (one.name for one in attributes(parse(expression)))
    return tuple(dict.fromkeys(name.removeprefix(USER) for name in read if name.startswith(USER)))


_OF: WeakKeyDictionary[Snapshot, Filters] = WeakKeyDictionary()


def filters_of(snapshot: Snapshot) -> Filters:
    """The one Filters of a snapshot in this process, so that all stages share its masks."""
    found = _OF.get(snapshot)
    if found is None:
        found = _OF.setdefault(snapshot, Filters(snapshot.metadata))
    return found
