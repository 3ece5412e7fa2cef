"""What each exposed unit did: one row per unit, in arrays, as of one time."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from handsell.core.units import DAY_US


@dataclass(frozen=True, slots=True)
class UnitOutcomes:
    """N units of an experiment as of `until`; T event types. Counts are since each unit's first exposure."""

    arms: tuple[str, ...]  # control first
    types: tuple[str, ...]
    until: int  # µs, exclusive
    conversion_us: int  # window of `converted` after the first exposure
    unit: np.ndarray  # (N,) ids
    arm: np.ndarray  # (N,) int8, the arm of the first exposure
    first: np.ndarray  # (N,) int64 µs, first exposure
    slates: np.ndarray  # (N,)
    first_day_slates: np.ndarray  # (N,) within a day after the first exposure
    busiest_hour: np.ndarray  # (N,) most slates in an hour of the clock
    shown: np.ndarray  # (N,) items of the slates
    clicks: np.ndarray  # (N,) of these, items with a positive event that is credited to them
    events: np.ndarray  # (N, T)
    converted: np.ndarray  # (N, T) bool, at least one event within the conversion window
    before: np.ndarray  # (N, T) events before the first exposure, covariates of CUPED
    active_1: np.ndarray  # (N,) bool, an event or a slate on the day that begins 24 h after the first exposure
    active_7: np.ndarray  # (N,) bool, seven days after it
    crossed: np.ndarray  # (N,) bool, seen in more than one arm, without a merge
    merged: np.ndarray  # (N,) bool, seen in more than one arm, by a merge of ids that were in different ones

    def __len__(self) -> int:
        return len(self.arm)

    @property
    def days(self) -> np.ndarray:
        """(N,) float: days since the first exposure."""
        return (self.until - self.first) / DAY_US

    @property
    def cold(self) -> np.ndarray:
        """(N,) bool: no event before the first exposure."""
        return self.before.sum(axis=1) == 0

    def select(self, rows: np.ndarray) -> UnitOutcomes:
        """Return the outcomes of some units, by (N,) bool or row numbers."""
        return replace(self, **{name: value[rows] for name, value in self.get_arrays().items()})

    def get_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays of N rows by name."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def count_units(self) -> np.ndarray:
        """Return the number of units of each arm."""
        return np.bincount(self.arm, minlength=len(self.arms))
