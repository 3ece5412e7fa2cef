"""Impressions by quota: what was shown, and how much of it was the quota's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import NONE
from handsell.core.units import DAY_US
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.schema import LONGEST_SLATE
from handsell.reranking.rules.scope import local


@dataclass(frozen=True, slots=True)
class ShownSlates:
    """B slates of n items as callers saw them."""

    item: np.ndarray  # (B, n) int32, -1 where nothing was
    time: np.ndarray  # (B,) int64 µs
    surface: np.ndarray  # (B,) int8
    unit: np.ndarray | None  # (B,) uint64 as of `unit_of`


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each of Q quotas of the day."""

    shown: np.ndarray  # (Q,) impressions where the quota holds
    own: np.ndarray  # (Q,) … of its items

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.shown + other.shown, self.own + other.own)

    def only(self, these: np.ndarray) -> Counts:
        """Zero but for these (Q,) bool."""
        return Counts(np.where(these, self.shown, 0), np.where(these, self.own, 0))

    @classmethod
    def zero(cls, quotas: int) -> Counts:
        return cls(np.zeros(quotas), np.zeros(quotas))


def counted(
    ruleset: RuleSet, seen: ShownSlates, day: np.ndarray | None = None, since: np.ndarray | None = None
) -> Counts:
    """Impressions; only of the quotas' current day (Q,), and from `since` (Q,) µs on, where those are given."""
    paced = ruleset.paced
    active = ruleset.scope.active(seen.time, seen.surface, seen.unit)[paced]
    if day is not None and since is not None:
        active &= (days(ruleset, seen.time) == day[:, None]) & (seen.time >= since[:, None])
    real = (seen.item != NONE) & active[:, :, None]
    if (reach := ruleset.reach[paced]).min(initial=LONGEST_SLATE) < seen.item.shape[1]:
        real &= np.arange(seen.item.shape[1]) < reach[:, :, None]
    own = ruleset.matches(seen.item, seen.time, paced) & real
    return Counts(real.sum(axis=(1, 2)).astype(float), own.sum(axis=(1, 2)).astype(float))


def days(ruleset: RuleSet, time: np.ndarray) -> np.ndarray:
    """(Q, B) number of the local day of times (B,)."""
    zones = [ruleset.rules.rules[r].time_zone for r in ruleset.paced]
    return np.array([local(time, zone) // DAY_US for zone in zones]).reshape(len(zones), len(time))
