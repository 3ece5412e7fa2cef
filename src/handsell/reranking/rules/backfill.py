"""What a rule brings in from the catalog when no candidate is one of its items."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Profile, Requests
from handsell.core.units import DAY_US
from handsell.eligibility.mask import Eligibility
from handsell.reranking.rules.ruleset import RuleSet

LOOK = 256  # items of a rule, its most popular, of which the best for the user is taken
POPULARITY = "item_positives_28d"


@dataclass(frozen=True)
class _Shelf:
    """M items of a rule, most popular first, and their tags."""

    item: np.ndarray  # (M,) int32
    cell: np.ndarray  # (N,) which of the items has …
    tag: np.ndarray  # (N,) … this tag
    tags: np.ndarray  # (M,) how many each has
    names: int  # tags that there are

    @classmethod
    def of(cls, item: np.ndarray, snapshot: Snapshot) -> _Shelf:
        rows = snapshot.item_tags.take(item)
        return cls(item.astype(np.int32), rows.row_of_value, rows.values, rows.lengths, len(snapshot.tags))

    def taste(self, profile: Profile) -> np.ndarray:
        """(B, M) float64: weight of the items' tags in each user's profile, per √ of how many they are."""
        out = np.zeros((len(profile.tag), len(self.item)))
        of_tag = np.zeros(self.names + 1)  # the last is nobody's: where the profile is padded
        for b in range(len(out)):
            of_tag[:] = 0
            of_tag[profile.tag[b]] = np.nan_to_num(profile.tag_weight[b])
            of_tag[-1] = 0
            out[b] = np.bincount(self.cell, of_tag[self.tag], len(self.item))
        return out / np.sqrt(np.maximum(self.tags, 1))


class Stock:
    """Eligible items of a rule, by the user's taste in tags, then by popularity."""

    def __init__(self, ruleset: RuleSet, eligibility: Eligibility):
        self._ruleset, self._eligibility = ruleset, eligibility
        self._shelf = lru_cache(256)(self._most_popular)

    def pick(self, rule: int, requests: Requests, present: np.ndarray, count: int) -> np.ndarray:
        """(B, count) int32 items that are not among present (B, K) and not excluded, best first, -1 padded."""
        shelf = self._shelf(rule, int(requests.time.max()) // DAY_US)
        out = np.full((len(requests), count), NONE, np.int32)
        if not len(shelf.item):
            return out
        items = np.broadcast_to(shelf.item, (len(requests), len(shelf.item)))
        may = self._eligibility.allows(requests, items) & ~(items[:, :, None] == present[:, None, :]).any(axis=2)
        may &= self._ruleset.matches(items, requests.time, [rule])[0]
        if barring := self._ruleset.excludes:
            active = self._ruleset.active(requests)[barring]
            may &= ~(self._ruleset.matches(items, requests.time, barring) & active[:, :, None]).any(axis=0)
        worth = np.where(may, shelf.taste(requests.profile) if len(shelf.item) > 1 else 0.0, -np.inf)
        order = np.argsort(-worth, axis=1, kind="stable")[:, :count]
        found = np.take_along_axis(items, order, 1)
        out[:, : order.shape[1]] = np.where(np.take_along_axis(may, order, 1), found, NONE)
        return out

    def _most_popular(self, rule: int, day: int) -> _Shelf:
        """At most LOOK items that are the rule's at some time of this day."""
        ruleset, all_items = self._ruleset, self._ruleset.snapshot
        mine = (ruleset.member >> np.uint64(rule)) & np.uint64(1) == 1
        mine &= all_items.available & (all_items.published < (day + 1) * DAY_US) & (all_items.expires > day * DAY_US)
        if ruleset.age_us[rule]:
            mine &= all_items.published >= day * DAY_US - ruleset.age_us[rule]
        items = np.flatnonzero(mine)
        if POPULARITY in all_items.value_names:
            column = all_items.values[:, all_items.value_names.index(POPULARITY)]
            items = items[np.argsort(-np.nan_to_num(column[items]), kind="stable")]
        return _Shelf.of(items[:LOOK], all_items)
