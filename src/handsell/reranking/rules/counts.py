"""Impressions of rules with a share of the day: how many were shown, and how many of these were the rule's items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import NONE
from handsell.core.units import DAY_US
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.schema import LONGEST_SLATE
from handsell.reranking.rules.scope import local_time


@dataclass(frozen=True, slots=True)
class ShownSlates:
    """B slates of n items as callers saw them."""

    item: np.ndarray  # (B, n) int32, -1 padded
    time: np.ndarray  # (B,) int64 µs
    surface: np.ndarray  # (B,) int8
    unit: np.ndarray | None  # (B,) uint64 of `hash_unit`


@dataclass(frozen=True, slots=True)
class ImpressionCounts:
    """Of each of Q paced rules."""

    shown: np.ndarray  # (Q,) impressions in requests and positions to which the rule applies
    own: np.ndarray  # (Q,) those of its items

    def __add__(self, other: ImpressionCounts) -> ImpressionCounts:
        return ImpressionCounts(self.shown + other.shown, self.own + other.own)

    def where(self, kept: np.ndarray) -> ImpressionCounts:
        """Set all but kept (Q,) bool to zero."""
        return ImpressionCounts(np.where(kept, self.shown, 0), np.where(kept, self.own, 0))

    @classmethod
    def zero(cls, rules: int) -> ImpressionCounts:
        return cls(np.zeros(rules), np.zeros(rules))


def count_impressions(
    ruleset: RuleSet, seen: ShownSlates, day: np.ndarray | None = None, since: np.ndarray | None = None
) -> ImpressionCounts:
    """Count impressions; if given, only those of the rules' current day (Q,) and from `since` (Q,) µs on."""
    paced = ruleset.paced
    active = ruleset.scope.active(seen.time, seen.surface, seen.unit)[paced]
    if day is not None and since is not None:
        active &= (local_days(ruleset, seen.time) == day[:, None]) & (seen.time >= since[:, None])
    real = (seen.item != NONE) & active[:, :, None]
    if (within := ruleset.within[paced]).min(initial=LONGEST_SLATE) < seen.item.shape[1]:
        real &= np.arange(seen.item.shape[1]) < within[:, :, None]
    own = ruleset.matches(seen.item, seen.time, paced) & real
    return ImpressionCounts(real.sum(axis=(1, 2)).astype(float), own.sum(axis=(1, 2)).astype(float))


def local_days(ruleset: RuleSet, time: np.ndarray) -> np.ndarray:
    """(Q, B) number of the day of times (B,) in each paced rule's time zone."""
    zones = [ruleset.rules.rules[r].time_zone for r in ruleset.paced]
    return np.array([local_time(time, zone) // DAY_US for zone in zones]).reshape(len(zones), len(time))
