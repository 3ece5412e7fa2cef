"""When and for whom a rule is active: surface, dates, days and hours, experiment arm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np

from handsell.core.errors import ConfigError
from handsell.core.hashing import finalize, hash_text
from handsell.core.units import MINUTE_US
from handsell.reranking.rules.reading import Rules, experiment_of
from handsell.reranking.rules.schema import DAYS, Rule

WEEK = 7 * 24 * 60  # minutes
QUARTER_US = 15 * MINUTE_US  # time zones change their offset on quarters of an hour
EPOCH_DAY = 3  # 1 January 1970 was a Thursday
NO_ARMS: Mapping[str, Collection[str]] = MappingProxyType({})
ALWAYS, NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Scope:
    """The scopes of R rules."""

    surface: np.ndarray  # (R, number of surfaces) bool
    begins: np.ndarray  # (R,) int64 µs
    ends: np.ndarray  # (R,) int64 µs, exclusive
    week: dict[int, np.ndarray]  # rules with days or hours → (WEEK,) bool active minutes, Monday first
    zone: tuple[str, ...]
    arm: dict[int, tuple[int, float, float]]  # rule → seed of the file's experiment, and its arm's interval of 0..1
    config_arm: dict[int, str] = field(default_factory=dict)  # rule → "experiment=arm" of the config, as in Requests

    @classmethod
    def of(cls, rules: Rules, surfaces: Sequence[str], experiments: Mapping[str, Collection[str]] = NO_ARMS) -> Scope:
        """`experiments` has the arms of the config's experiments by name.

        Raises ConfigError for a surface, an experiment or an arm that is not configured.
        """
        for rule in rules.rules:
            if unknown := [name for name in rule.surfaces if name not in surfaces]:
                expected = f"expected surfaces of the config ({', '.join(surfaces)})"
                raise rules.error(rule, f"surfaces: {expected}; got {unknown[0]!r}")
        if both := sorted({*rules.experiments} & {*experiments}):
            raise ConfigError(
                f"rules {rules.source}: experiments.{both[0]}: the config defines an experiment of this name, too: "
                "remove it here, and the rules refer to that of the config"
            )
        every = rules.rules
        found = {i: find_config_arm(rules, rule, experiments) for i, rule in enumerate(every) if rule.arm is not None}
        return cls(
            np.array([[not r.surfaces or s in r.surfaces for s in surfaces] for r in every], bool).reshape(
                -1, len(surfaces)
            ),
            np.array([ALWAYS if r.from_ is None else r.to_micros(r.from_) for r in every], np.int64),
            np.array([NEVER if r.until is None else r.to_micros(r.until) for r in every], np.int64),
            {i: active_minutes(r) for i, r in enumerate(every) if r.days or r.hours},
            tuple(r.time_zone for r in every),
            {i: _arm_interval(rules, every[i]) for i, arm in found.items() if arm is None},
            {i: arm for i, arm in found.items() if arm is not None},
        )

    def active(
        self, time: np.ndarray, surface: np.ndarray, unit: np.ndarray | None, arms: np.ndarray | None = None
    ) -> np.ndarray:
        """(R, B) bool for requests at time (B,) µs on surface (B,); unit (B,) of `hash_unit`, None: none is known.

        `arms` (B,) as in Requests.
        """
        active = self.surface[:, surface] & self.find_in_time(time)
        for rule, (seed, low, high) in self.arm.items():
            if unit is None:
                active[rule] = False
                continue
            drawn = draw(unit, seed)
            active[rule] &= (unit != 0) & (low <= drawn) & (drawn < high)
        for rule, arm in self.config_arm.items():
            active[rule] &= False if arms is None else np.array([arm in taken for taken in arms], bool)
        return active

    def find_in_time(self, time: np.ndarray) -> np.ndarray:
        """(R, B) bool, whether each rule's dates, days and hours include time (B,) µs."""
        found = (self.begins[:, None] <= time) & (time < self.ends[:, None])
        for rule, minutes in self.week.items():
            found[rule] &= minutes[(local_time(time, self.zone[rule]) // MINUTE_US + EPOCH_DAY * 1_440) % WEEK]
        return found


def active_minutes(rule: Rule) -> np.ndarray:
    """Return (WEEK,) bool; hours past midnight belong to the day on which they begin."""
    minutes = np.zeros(WEEK, bool)
    start, end = (0, 1_440) if rule.hours is None else (_minute(part) for part in rule.hours.split("-"))
    for day in rule.days or DAYS:
        at = DAYS.index(day) * 1_440 + np.arange(start, end if end > start else end + 1_440)
        minutes[at % WEEK] = True
    return minutes


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def local_time(time: np.ndarray, zone: str) -> np.ndarray:
    """Return times (B,) µs shifted by the offset of the zone."""
    if zone == "UTC":
        return time
    return time + np.array([offset_us(zone, quarter) for quarter in (time // QUARTER_US).tolist()], np.int64)


@lru_cache(4_096)
def offset_us(zone: str, quarter: int) -> int:
    """Return the zone's offset from UTC in µs, in that quarter of an hour since the epoch."""
    at = datetime.fromtimestamp(quarter * 900, UTC).astimezone(ZoneInfo(zone)).utcoffset()
    return 0 if at is None else round(at.total_seconds()) * 1_000_000


# -- experiment arms ----------------------------------------------------------------------------------------------


def draw(unit: np.ndarray, seed: int) -> np.ndarray:
    """Return (B,) float64 in 0..1, uniform over users and independent between seeds (one an experiment): SplitMix64."""
    with np.errstate(over="ignore"):
        return finalize(unit.astype(np.uint64) ^ np.uint64(seed)) / 2.0**64


def find_config_arm(rules: Rules, rule: Rule, experiments: Mapping[str, Collection[str]]) -> str | None:
    """Return "experiment=arm" if the rule refers to an experiment of the config, None if to one of the file."""
    name = experiment_of(rules, rule)
    if name in rules.experiments:
        return None
    if name is None or name not in experiments:
        known = ", ".join([*rules.experiments, *experiments]) or "none"
        raise rules.error(rule, f"experiment: expected one of the file's or the config's ({known}); got {name!r}")
    if rule.arm not in experiments[name]:
        raise rules.error(rule, f"arm: expected an arm of {name} ({', '.join(experiments[name])}); got {rule.arm!r}")
    return f"{name}={rule.arm}"


def _arm_interval(rules: Rules, rule: Rule) -> tuple[int, float, float]:
    name = experiment_of(rules, rule)
    assert name is not None and rule.arm is not None  # checked by parse_rules
    low = 0.0
    for arm, share in rules.experiments[name].arms.items():
        if arm == rule.arm:
            return hash_text(name), low, low + share
        low += share
    raise AssertionError("arms are checked by parse_rules")
