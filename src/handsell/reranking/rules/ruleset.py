"""Rules made ready for one catalog: one number of bits per item, so that a batch is matched by one gather."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.errors import FilterError
from handsell.core.units import DAY_US
from handsell.eligibility.filters import filters_of
from handsell.reranking.rules.reading import Rules
from handsell.reranking.rules.schema import LONGEST_SLATE, AnyRule, Boost, Bury, Exclude, Include, Pin, Quota
from handsell.reranking.rules.scope import Scope


@dataclass(frozen=True, eq=False)
class RuleSet:
    """R rules over I items. Bit r of member[i]: item i is one of rule r's, its age left aside."""

    rules: Rules
    snapshot: Snapshot
    scope: Scope
    member: np.ndarray  # (I,) uint64
    age_us: np.ndarray  # (R,) int64, 0: of any age

    @classmethod
    def of(cls, rules: Rules, snapshot: Snapshot, surfaces: Sequence[str]) -> RuleSet:
        """Raises ConfigError for a selector or a surface that this deployment does not understand."""
        member = np.zeros(len(snapshot), np.uint64)
        for bit, rule in enumerate(rules.rules):
            member |= selected(rules, rule, snapshot).astype(np.uint64) << np.uint64(bit)
        age = np.array([round((r.newer_than_days or 0) * DAY_US) for r in rules.rules], np.int64)
        return cls(rules, snapshot, Scope.of(rules, surfaces), member, age)

    def __len__(self) -> int:
        return len(self.rules.rules)

    @property
    def version(self) -> str:
        return self.rules.version

    def active(self, requests: Requests) -> np.ndarray:
        """(R, B) bool."""
        return self.scope.active(requests.time, requests.surface, requests.unit)

    def matches(self, items: np.ndarray, time: np.ndarray, rules: Sequence[int] | None = None) -> np.ndarray:
        """(R, B, K) bool: item (B, K) is one of the rule's at time (B,); -1 is of none. Some rules only, if given."""
        at = np.maximum(items, 0)
        which = self._bits if rules is None else self._bits[list(rules)]
        found = (self.member[at] & which) != 0
        found &= items != NONE
        if self._aged:
            published, now = self.snapshot.published[at], time[:, None]
            for place, r in enumerate(range(len(self)) if rules is None else rules):
                if self.age_us[r]:
                    found[place] &= (published <= now) & (published >= now - self.age_us[r])
        return found

    @cached_property
    def _bits(self) -> np.ndarray:
        """(R, 1, 1) uint64."""
        return (np.uint64(1) << np.arange(len(self), dtype=np.uint64))[:, None, None]

    @cached_property
    def _aged(self) -> bool:
        return bool(self.age_us.any())

    @cached_property
    def reach(self) -> np.ndarray:
        """(R, 1) positions within which each rule looks."""
        reach = [getattr(rule, "within", None) or LONGEST_SLATE for rule in self.rules.rules]
        return np.array(reach, np.int64)[:, None]

    # -- rules by kind, in the order of the file ---------------------------------------------------------------

    @cached_property
    def excludes(self) -> list[int]:
        return self._of(Exclude)

    @cached_property
    def pins(self) -> list[int]:
        return self._of(Pin)

    @cached_property
    def includes(self) -> list[int]:
        return self._of(Include)

    @cached_property
    def quotas(self) -> list[int]:
        return self._of(Quota)

    @cached_property
    def paced(self) -> list[int]:
        """Quotas of the day."""
        return [r for r in self.quotas if self.quota(r).per == "day"]

    @cached_property
    def weights(self) -> list[tuple[int, float, float]]:
        """Rules that move relevance: (rule, factor - 1, what is added)."""
        moved = []
        for r, rule in enumerate(self.rules.rules):
            if isinstance(rule, Boost):
                moved.append((r, rule.factor - 1, rule.add))
            elif isinstance(rule, Bury):
                moved.append((r, rule.factor - 1, -rule.subtract))
        return moved

    def quota(self, r: int) -> Quota:
        rule = self.rules.rules[r]
        assert isinstance(rule, Quota)
        return rule

    def _of(self, kind: type) -> list[int]:
        return [r for r, rule in enumerate(self.rules.rules) if isinstance(rule, kind)]


def selected(rules: Rules, rule: AnyRule, snapshot: Snapshot) -> np.ndarray:
    """(I,) bool, the rule's items, their age left aside; raises ConfigError."""
    chosen = np.ones(len(snapshot), bool)
    if rule.items is not None:
        try:
            chosen &= filters_of(snapshot).mask(rule.items)
        except FilterError as error:
            raise rules.fail(rule, "items", str(error)) from None
    if rule.creator_items_at_most is not None:
        chosen &= creator_items(snapshot) <= rule.creator_items_at_most
    return chosen


def creator_items(snapshot: Snapshot) -> np.ndarray:
    """(I,) how many items the item's primary creator has in the catalog; 1 for an item without one."""
    known = snapshot.creator != NONE
    counts = np.bincount(snapshot.creator[known], minlength=1)
    return np.where(known, counts[np.maximum(snapshot.creator, 0)], 1)
