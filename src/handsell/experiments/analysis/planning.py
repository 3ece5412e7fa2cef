"""How small an effect an experiment finds, and how long it takes, from the traffic that is already logged.

Each horizon of 1, 2, … days is replayed: units arrive, and their events accumulate, as in the last days of the log.
Beyond these days the variance of the estimate continues as the power of time that it followed in their second half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.errors import DataError
from handsell.experiments.analysis.effects import MIN_NUMERATOR
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import Measure
from handsell.experiments.analysis.outliers import limit_outliers
from handsell.experiments.analysis.ratios import estimate_ratio, summarize
from handsell.experiments.analysis.sequences import ALPHA, POWER, count_errors_to_detect

HORIZONS = (7, 14, 21, 28, 42, 56, 84)
MAX_DAYS = 365


@dataclass(frozen=True, slots=True)
class PlannedHorizon:
    """What can be found after some days, with 80 % power, by always-valid intervals."""

    days: int
    units: int  # of both arms
    smallest_effect: float  # relative
    logged: bool  # measured on the log, not continued


@dataclass(frozen=True, slots=True)
class ExperimentPlan:
    """The plan of one arm beside control."""

    metric: str
    value: float  # of the metric today
    logged_days: int
    units_per_day: float  # new ones, over the logged days
    variance_reduction: float  # by CUPED
    effect: float
    days: int | None  # until `effect` is found, None if not within MAX_DAYS
    horizons: tuple[PlannedHorizon, ...]


def plan_experiment(
    looks: list[UnitOutcomes],
    metric: str,
    measure: Measure,
    shares: tuple[float, float],
    effect: float,
    alpha: float = ALPHA,
    power: float = POWER,
) -> ExperimentPlan:
    """Plan from outcomes as of the end of each logged day, all in one arm.

    `shares` are those of control and of the arm among all units of this traffic.
    """
    errors, units = [], []
    value, reduction = float("nan"), 0.0
    for look in looks:
        kept, _ = limit_outliers(look)
        columns = measure(kept)
        own = columns.rows
        sums = summarize(columns.numerator[own], columns.denominator[own], columns.covariate[own])
        if sums.count() < 2 or float(columns.numerator[own].sum()) < MIN_NUMERATOR:
            errors.append(np.nan)
        else:
            value, variance, plain = estimate_ratio(sums)
            reduction = 1 - variance / plain if plain > 0 else 0.0
            errors.append(np.sqrt(variance * (1 / shares[0] + 1 / shares[1])) / abs(value))  # shares of all units
        units.append(len(kept) * sum(shares))
    curve = ErrorCurve.fit(np.array(errors), np.array(units))
    found = [curve.smallest_effect(day, alpha, power) for day in range(1, MAX_DAYS + 1)]
    days = next((day for day, smallest in enumerate(found, start=1) if smallest <= effect), None)
    horizons = tuple(
        PlannedHorizon(day, curve.count_units(day), found[day - 1], day <= len(looks))
        for day in sorted({*HORIZONS, *([days] if days else [])})
    )
    return ExperimentPlan(metric, value, len(looks), units[-1] / len(looks), reduction, effect, days, horizons)


@dataclass(frozen=True)
class ErrorCurve:
    """Relative standard error of the effect, and units, after each logged day, continued as powers of time."""

    errors: np.ndarray  # (L,) NaN where there is too little
    units: np.ndarray  # (L,)
    error_slope: float
    unit_slope: float

    @classmethod
    def fit(cls, errors: np.ndarray, units: np.ndarray) -> ErrorCurve:
        """Fit the slopes on the second half of the logged days; raises DataError with fewer than two usable days."""
        usable = np.isfinite(errors) & (errors > 0)
        if usable.sum() < 2:
            raise DataError(
                f"a plan needs two days of logged traffic with at least {MIN_NUMERATOR:.0f} events of the metric, got "
                f"{int(usable.sum())}: serve and log for some days, or take a metric with more events"
            )
        day = np.arange(1, len(errors) + 1)
        half = usable & (day > len(errors) // 2)
        half = half if half.sum() > 1 else usable
        slope = float(np.polyfit(np.log(day[half]), np.log(errors[half]), 1)[0])
        growth = float(np.polyfit(np.log(day[half]), np.log(units[half]), 1)[0])
        return cls(errors, units, float(np.clip(slope, -0.5, 0.0)), float(np.clip(growth, 0.0, 1.0)))

    def smallest_effect(self, day: int, alpha: float, power: float) -> float:
        """Return the smallest relative effect that is found after a day, infinite where nothing is."""
        if day <= len(self.errors):
            error = self.errors[day - 1]
        else:
            error = self.errors[-1] * (day / len(self.errors)) ** self.error_slope
        return float(error) * count_errors_to_detect(alpha, power) if np.isfinite(error) else float("inf")

    def count_units(self, day: int) -> int:
        if day <= len(self.units):
            return int(self.units[day - 1])
        return int(self.units[-1] * (day / len(self.units)) ** self.unit_slope)
