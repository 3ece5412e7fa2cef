"""When and for whom a rule is in force: surface, dates, days and hours, arm."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from handsell.core.hashing import finalize
from handsell.core.units import MINUTE_US
from handsell.reranking.rules.reading import Rules, experiment_of
from handsell.reranking.rules.schema import DAYS, AnyRule

WEEK = 7 * 24 * 60  # minutes
QUARTER_US = 15 * MINUTE_US  # time zones change their offset on quarters of an hour
EPOCH_DAY = 3  # 1 January 1970 was a Thursday
ALWAYS, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Scope:
    """R rules. `active` says which of them hold for which requests."""

    surface: np.ndarray  # (R, number of surfaces) bool
    begins: np.ndarray  # (R,) int64 µs
    ends: np.ndarray  # (R,) int64 µs, from then on no more
    week: dict[int, np.ndarray]  # rule → (WEEK,) bool open minutes, Monday first, of rules with days or hours
    zone: tuple[str, ...]
    arm: dict[int, tuple[int, float, float]]  # rule → experiment's seed, and the part of 0..1 that is its arm

    @classmethod
    def of(cls, rules: Rules, surfaces: Sequence[str]) -> Scope:
        """Raises ConfigError for a surface that the config does not have."""
        for rule in rules.rules:
            if unknown := [name for name in rule.surfaces if name not in surfaces]:
                why = f"expected surfaces of the config ({', '.join(surfaces)}); got {unknown[0]!r}"
                raise rules.fail(rule, "surfaces", why)
        every = rules.rules
        return cls(
            np.array([[not r.surfaces or s in r.surfaces for s in surfaces] for r in every], bool).reshape(
                -1, len(surfaces)
            ),
            np.array([ALWAYS if r.from_ is None else r.moment(r.from_) for r in every], np.int64),
            np.array([NEVER if r.until is None else r.moment(r.until) for r in every], np.int64),
            {i: open_minutes(r) for i, r in enumerate(every) if r.days or r.hours},
            tuple(r.time_zone for r in every),
            {i: _arm(rules, r) for i, r in enumerate(every) if r.arm is not None},
        )

    def active(self, time: np.ndarray, surface: np.ndarray, unit: np.ndarray | None) -> np.ndarray:
        """(R, B) bool for requests at time (B,) µs on surface (B,); unit (B,) as of `unit_of`."""
        active = self.surface[:, surface] & (self.begins[:, None] <= time) & (time < self.ends[:, None])
        for rule, minutes in self.week.items():
            active[rule] &= minutes[(local(time, self.zone[rule]) // MINUTE_US + EPOCH_DAY * 1_440) % WEEK]
        for rule, (seed, low, high) in self.arm.items():
            if unit is None:
                active[rule] = False
                continue
            drawn = draw(unit, seed)
            active[rule] &= (unit != 0) & (low <= drawn) & (drawn < high)
        return active


def open_minutes(rule: AnyRule) -> np.ndarray:
    """(WEEK,) bool; hours past midnight belong to the day on which they begin."""
    minutes = np.zeros(WEEK, bool)
    start, end = (0, 1_440) if rule.hours is None else (_minute(part) for part in rule.hours.split("-"))
    for day in rule.days or DAYS:
        at = DAYS.index(day) * 1_440 + np.arange(start, end if end > start else end + 1_440)
        minutes[at % WEEK] = True
    return minutes


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def local(time: np.ndarray, zone: str) -> np.ndarray:
    """Times (B,) µs as a clock in that zone shows them, µs."""
    if zone == "UTC":
        return time
    return time + np.array([offset_us(zone, quarter) for quarter in (time // QUARTER_US).tolist()], np.int64)


@lru_cache(4_096)
def offset_us(zone: str, quarter: int) -> int:
    """The zone's offset from UTC in that quarter of an hour since the epoch."""
    at = datetime.fromtimestamp(quarter * 900, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return 0 if at is None else round(at.total_seconds()) * 1_000_000


# -- arms: which part of the users. The hook for experiments: nothing else decides on an arm -----------------------


def unit_of(user_id: str | None) -> int:
    """The user as assignment sees one: 64 bits of a hash of the id; 0, in no arm at all, for one without an id."""
    return 0 if user_id is None else _bits(user_id) or 1


def draw(unit: np.ndarray, seed: int) -> np.ndarray:
    """(B,) float64 in 0..1, even over users, and independent from one experiment (seed) to the next: splitmix64."""
    with np.errstate(over="ignore"):
        return finalize(unit.astype(np.uint64) ^ np.uint64(seed)) / 2.0**64


def _arm(rules: Rules, rule: AnyRule) -> tuple[int, float, float]:
    name = experiment_of(rules, rule)
    assert name is not None and rule.arm is not None  # checked when the file was read
    low = 0.0
    for arm, share in rules.experiments[name].arms.items():
        if arm == rule.arm:
            return _bits(name), low, low + share
        low += share
    raise AssertionError("checked when the file was read")


def _bits(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
