"""The effect of each arm on one metric, absolute and relative, with always-valid intervals and p-values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import Measure
from handsell.experiments.analysis.ratios import RatioEffect, compare_ratios, summarize
from handsell.experiments.analysis.sequences import ALPHA, compute_p_value, compute_width, tune_prior

Outcome = Literal["beats", "loses", "undecided"]
MIN_UNITS = 100  # with a value, in each of the two arms; fewer are far from a normal distribution
MAX_LOG = 50.0  # of a ratio: beyond it nothing is known
MIN_NUMERATOR = 20.0  # sum of the numerator in each of the two arms


NAN = float("nan")
UNKNOWN = RatioEffect(NAN, NAN, NAN, NAN, 0.0, 0)


@dataclass(frozen=True, slots=True)
class ArmEffect:
    """One metric of one arm beside control; intervals are always valid, None where there is too little data."""

    metric: str
    arm: str
    outcome: Outcome
    control: float
    treatment: float
    difference: float
    low: float | None
    high: float | None
    relative: float | None  # treatment / control − 1
    relative_low: float | None
    relative_high: float | None
    error: float  # standard error of the difference
    p_value: float
    variance_reduction: float  # by CUPED
    units: int
    reason: str = ""  # why there is no interval


def estimate_effects(
    metric: str, measure: Measure, outcomes: UnitOutcomes, smallest_effect: float, alpha: float = ALPHA
) -> list[ArmEffect]:
    """Estimate the effect of each arm but control; arms share alpha equally."""
    columns = measure(outcomes)
    sums, enough = [], []
    for arm in range(len(outcomes.arms)):
        own = columns.rows & (outcomes.arm == arm)
        numerator = columns.numerator[own]
        sums.append(summarize(numerator, columns.denominator[own], columns.covariate[own]))
        enough.append(int(own.sum()) >= MIN_UNITS and float(numerator.sum()) >= MIN_NUMERATOR)
    level = alpha / max(len(outcomes.arms) - 1, 1)
    found = []
    for arm in range(1, len(outcomes.arms)):
        ratio = compare_ratios(sums, arm)
        if ratio is None:
            found.append(_leave_open(metric, outcomes.arms[arm], UNKNOWN))
        elif not (enough[0] and enough[arm]):
            found.append(_leave_open(metric, outcomes.arms[arm], ratio))
        else:
            found.append(judge_effect(metric, outcomes.arms[arm], ratio, smallest_effect, level))
    return found


def judge_effect(metric: str, arm: str, ratio: RatioEffect, smallest_effect: float, alpha: float = ALPHA) -> ArmEffect:
    """Return the effect with its intervals; it beats or loses only where both intervals exclude 0."""
    prior = tune_prior(smallest_effect, alpha)
    scale = prior * abs(ratio.control)
    if ratio.error <= 0 or scale <= 0:
        return _leave_open(metric, arm, ratio)
    y = (scale / ratio.error) ** 2
    width = float(compute_width(y, alpha))
    low, high = ratio.difference - width * ratio.error, ratio.difference + width * ratio.error
    outcome: Outcome = "beats" if low > 0 else "loses" if high < 0 else "undecided"
    relative = low_share = high_share = None
    if math.isfinite(ratio.log_error):
        middle = math.log(ratio.treatment / ratio.control)
        half = float(compute_width((prior / ratio.log_error) ** 2, alpha)) * ratio.log_error
        logs = np.clip((middle, middle - half, middle + half), -MAX_LOG, MAX_LOG)
        relative, low_share, high_share = np.expm1(logs).tolist()
        outcome = outcome if abs(middle) > half else "undecided"
    return ArmEffect(
        metric, arm, outcome, ratio.control, ratio.treatment, ratio.difference, low, high,
        relative, low_share, high_share, ratio.error,
        float(compute_p_value(ratio.difference / ratio.error, y)), ratio.reduction, ratio.units,
    )  # fmt: skip


def _leave_open(metric: str, arm: str, ratio: RatioEffect) -> ArmEffect:
    reason = f"fewer than {MIN_UNITS} units or {MIN_NUMERATOR:.0f} events in an arm"
    relative = ratio.treatment / ratio.control - 1 if ratio.control > 0 else None
    return ArmEffect(
        metric, arm, "undecided", ratio.control, ratio.treatment, ratio.difference, None, None,
        relative, None, None, ratio.error, 1.0, ratio.reduction, ratio.units, reason,
    )  # fmt: skip


def correct_by_holm(p_values: np.ndarray) -> np.ndarray:
    """Return p-values (P,) corrected for P tests by Holm's method (@holm1979)."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected
