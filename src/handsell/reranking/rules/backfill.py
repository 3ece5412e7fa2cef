"""Items that a rule takes from the catalog when no candidate matches it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Profile, Requests
from handsell.core.units import DAY_US
from handsell.eligibility.mask import Eligibility
from handsell.reranking.rules.ruleset import RuleSet

MAX_ITEMS = 256  # of a rule, its most popular, from which the best for the user is chosen
POPULARITY = "item_positives_28d"


@dataclass(frozen=True)
class _RuleItems:
    """M items of a rule, most popular first, and their N tags in a row."""

    item: np.ndarray  # (M,) int32
    row: np.ndarray  # (N,) place in `item` of each tag
    tag: np.ndarray  # (N,)
    tags: np.ndarray  # (M,) number of tags of each item
    all_tags: int  # in the catalog

    @classmethod
    def of(cls, item: np.ndarray, snapshot: Snapshot) -> _RuleItems:
        rows = snapshot.item_tags.take(item)
        return cls(item.astype(np.int32), rows.row_of_value, rows.values, rows.lengths, len(snapshot.tags))

    def affinity(self, profile: Profile) -> np.ndarray:
        """(B, M) float64: sum of the profile's weights of the item's tags, divided by √(number of tags)."""
        out = np.zeros((len(profile.tag), len(self.item)))
        of_tag = np.zeros(self.all_tags + 1)  # the last entry takes the profile's padding
        for b in range(len(out)):
            of_tag[:] = 0
            of_tag[profile.tag[b]] = np.nan_to_num(profile.tag_weight[b])
            of_tag[-1] = 0
            out[b] = np.bincount(self.row, of_tag[self.tag], len(self.item))
        return out / np.sqrt(np.maximum(self.tags, 1))


class Backfill:
    """Eligible items of each rule, by the user's affinity to their tags, then by popularity."""

    def __init__(self, ruleset: RuleSet, eligibility: Eligibility):
        self._ruleset, self._eligibility = ruleset, eligibility
        self._items_of = lru_cache(256)(self._most_popular)

    def find(self, rule: int, requests: Requests, present: np.ndarray, count: int) -> np.ndarray:
        """(B, count) int32 items that are not among present (B, K) and not removed by a rule, best first, -1 padded."""
        own = self._items_of(rule, int(requests.time.max()) // DAY_US)
        out = np.full((len(requests), count), NONE, np.int32)
        if not len(own.item):
            return out
        items = np.broadcast_to(own.item, (len(requests), len(own.item)))
        may = self._eligibility.allows(requests, items) & ~(items[:, :, None] == present[:, None, :]).any(axis=2)
        may &= self._ruleset.matches(items, requests.time, [rule])[0]
        if (removed := self._ruleset.removed(requests, items)) is not None:
            may &= ~removed
        affinity = np.where(may, own.affinity(requests.profile) if len(own.item) > 1 else 0.0, -np.inf)
        order = np.argsort(-affinity, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(items, order, 1)
        out[:, : order.shape[1]] = np.where(np.take_along_axis(may, order, 1), found, NONE)
        return out

    def _most_popular(self, rule: int, day: int) -> _RuleItems:
        """At most MAX_ITEMS items that match the rule at some time of this day."""
        ruleset, catalog = self._ruleset, self._ruleset.snapshot
        mine = (ruleset.member >> np.uint64(rule)) & np.uint64(1) == 1
        mine &= catalog.available & (catalog.published < (day + 1) * DAY_US) & (catalog.expires > day * DAY_US)
        if ruleset.age_us[rule]:
            mine &= catalog.published >= day * DAY_US - ruleset.age_us[rule]
        items = np.flatnonzero(mine)
        if POPULARITY in catalog.value_names:
            column = catalog.values[:, catalog.value_names.index(POPULARITY)]
            items = items[np.argsort(-np.nan_to_num(column[items]), kind="stable")]
        return _RuleItems.of(items[:MAX_ITEMS], catalog)
