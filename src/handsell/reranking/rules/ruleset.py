"""Rules compiled for one catalog: a bit mask for each item, so that one gather matches a batch against all rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.errors import ConfigError, FilterError
from handsell.core.units import DAY_US
from handsell.eligibility.filters import get_filters
from handsell.reranking.rules.kind import RuleEffect, RuleMatch, rule_kinds
from handsell.reranking.rules.reading import Rules
from handsell.reranking.rules.schema import Rule
from handsell.reranking.rules.scope import NO_ARMS, Scope

MAX_CONSTRAINTS = 8  # rules of one file with a constraint: each weighs more than the one before it (selection.py)


@dataclass(frozen=True, eq=False)
class RuleSet:
    """R rules over I items. Bit r of member[i]: rule r selects item i, apart from the item's age."""

    rules: Rules
    snapshot: Snapshot
    scope: Scope
    effects: tuple[RuleEffect[Any], ...]  # (R,)
    member: np.ndarray  # (I,) uint64
    age_us: np.ndarray  # (R,) int64, greatest age; 0: any

    @classmethod
    def of(
        cls,
        rules: Rules,
        snapshot: Snapshot,
        surfaces: Sequence[str],
        experiments: Mapping[str, Collection[str]] = NO_ARMS,
    ) -> RuleSet:
        """`experiments` has the arms of the config's experiments by name.

        Raises ConfigError for a rule that does not fit the catalog, the surfaces or the experiments.
        """
        member = np.zeros(len(snapshot), np.uint64)
        for bit, rule in enumerate(rules.rules):
            member |= select_items(rules, rule, snapshot).astype(np.uint64) << np.uint64(bit)
        age = np.array([round((r.newer_than_days or 0) * DAY_US) for r in rules.rules], np.int64)
        effects = tuple(_build_effect(rules, rule, snapshot) for rule in rules.rules)
        made = cls(rules, snapshot, Scope.of(rules, surfaces, experiments), effects, member, age)
        if len(made.constraining) > MAX_CONSTRAINTS:
            names = ", ".join(rules.rules[r].name for r in made.constraining)
            raise ConfigError(
                f"rules {rules.source}: expected at most {MAX_CONSTRAINTS} rules that constrain the order of a slate; "
                f"got {len(made.constraining)} ({names}): join their selectors with `or`"
            )
        if both := [r for r in made.paced if r in made.scope.config_arm]:
            raise rules.error(
                rules.rules[both[0]],
                "arm: expected an experiment of this file, as a share of the day is counted from impressions; got one "
                "of the config",
            )
        return made

    def with_snapshot(self, snapshot: Snapshot) -> RuleSet:
        """Return the same rules on the next version of a bundle's live changes."""
        if not isinstance(snapshot, LiveSnapshot):
            return self
        changed, member = snapshot.changed, np.zeros(len(snapshot), np.uint64)
        member[: len(self.member)] = self.member
        member[changed] = 0
        for bit, rule in enumerate(self.rules.rules):
            mine, mask = select_items(self.rules, rule, snapshot), np.uint64(1) << np.uint64(bit)
            if rule.creator_items_at_most is None:
                member[changed] |= np.where(mine[changed], mask, np.uint64(0))
            else:  # a changed item changes the count of all items of its creator
                member = np.where(mine, member | mask, member & ~mask)
        effects = tuple(_build_effect(self.rules, rule, snapshot) for rule in self.rules.rules)
        return RuleSet(self.rules, snapshot, self.scope, effects, member, self.age_us)

    def __len__(self) -> int:
        return len(self.rules.rules)

    @property
    def version(self) -> str:
        return self.rules.version

    def active(self, requests: Requests) -> np.ndarray:
        """(R, B) bool."""
        return self.scope.active(requests.time, requests.surface, requests.unit, requests.arms)

    def matches(self, items: np.ndarray, time: np.ndarray, rules: Sequence[int] | None = None) -> np.ndarray:
        """(R, B, K) bool, whether each rule, or each of `rules`, selects items (B, K) at time (B,); never -1."""
        at = np.maximum(items, 0)
        bits = self._bits if rules is None else self._bits[list(rules)]
        found = (self.member[at] & bits) != 0
        found &= items != NONE
        if self._limits_age:
            published, now = self.snapshot.published[at], time[:, None]
            for place, r in enumerate(range(len(self)) if rules is None else rules):
                if self.age_us[r]:
                    found[place] &= (published <= now) & (published >= now - self.age_us[r])
        return found

    def removed(self, requests: Requests, items: np.ndarray) -> np.ndarray | None:
        """(B, K) bool, items that some rule removes; None if no rule can."""
        if not self.removing:
            return None
        active = self.active(requests)[self.removing]
        matching = self.matches(items, requests.time, self.removing) & active[:, :, None]
        found = np.zeros(items.shape, bool)
        for r, mine, where in zip(self.removing, matching, active, strict=True):
            found |= self.effects[r].remove(RuleMatch(requests, items, mine, where))
        return found

    @cached_property
    def _bits(self) -> np.ndarray:
        """(R, 1, 1) uint64."""
        return (np.uint64(1) << np.arange(len(self), dtype=np.uint64))[:, None, None]

    @cached_property
    def _limits_age(self) -> bool:
        return bool(self.age_us.any())

    @cached_property
    def within(self) -> np.ndarray:
        """(R, 1) positions from the top to which each rule refers."""
        return np.array([effect.within for effect in self.effects], np.int64)[:, None]

    # -- rules by what they do, in the order of the file -------------------------------------------------------

    @cached_property
    def removing(self) -> list[int]:
        return self._find_overriding("remove")

    @cached_property
    def weighing(self) -> list[int]:
        return self._find_overriding("weigh")

    @cached_property
    def constraining(self) -> list[int]:
        return self._find_overriding("constraint")

    @cached_property
    def paced(self) -> list[int]:
        """Rules with a share of the day's impressions."""
        return [r for r, effect in enumerate(self.effects) if effect.daily_share is not None]

    @cached_property
    def bounding(self) -> list[int]:
        """Rules that bound the number of their items in each slate by itself."""
        return [r for r in self._find_overriding("bounds") if r not in self.paced]

    @cached_property
    def pins(self) -> dict[int, int]:
        """Rule → its position, counted from 0."""
        return {r: effect.position - 1 for r, effect in enumerate(self.effects) if effect.position is not None}

    @cached_property
    def filling(self) -> list[int]:
        """Rules that fill positions or bound counts, in order of precedence."""
        rules = sorted({*self.pins, *self.bounding, *self.paced})
        return sorted(rules, key=lambda r: rule_kinds()[self.rules.rules[r].kind].order)

    def _find_overriding(self, member: str) -> list[int]:
        return [r for r, effect in enumerate(self.effects) if effect.overrides(member)]


def select_items(rules: Rules, rule: Rule, snapshot: Snapshot) -> np.ndarray:
    """(I,) bool, the rule's items whatever their age; raises ConfigError."""
    chosen = np.ones(len(snapshot), bool)
    if rule.items is not None:
        try:
            chosen &= get_filters(snapshot).mask(rule.items)
        except FilterError as error:
            raise rules.error(rule, f"items: {error}") from None
    if rule.creator_items_at_most is not None:
        chosen &= creator_sizes(snapshot) <= rule.creator_items_at_most
    return chosen


def creator_sizes(snapshot: Snapshot) -> np.ndarray:
    """(I,) number of items of the item's primary creator; 1 for an item without one."""
    known = snapshot.creator != NONE
    counts = np.bincount(snapshot.creator[known], minlength=1)
    return np.where(known, counts[np.maximum(snapshot.creator, 0)], 1)


def _build_effect(rules: Rules, rule: Rule, snapshot: Snapshot) -> RuleEffect[Any]:
    try:
        return rule_kinds()[rule.kind].effect(rule, snapshot)
    except ValueError as error:
        raise rules.error(rule, str(error)) from None
