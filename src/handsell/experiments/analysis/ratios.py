"""Effects on ratios of sums over units, such as clicks per shown item, with errors clustered by unit, and CUPED.

A mean per unit is the ratio with denominator 1. Variances of ratios come from the delta method (tea-tasting,
@deng2018delta). CUPED (@deng2013cuped) subtracts what a covariate from before the exposure predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tea_tasting.aggr import Aggregates

NAMES = ("numerator", "denominator", "covariate")


@dataclass(frozen=True, slots=True)
class RatioEffect:
    """The ratio of a treatment beside that of control; standard errors are of the difference and of the log ratio."""

    control: float
    treatment: float
    error: float
    log_error: float  # NaN where a ratio is not positive
    reduction: float  # share of the variance that CUPED removed
    units: int

    @property
    def difference(self) -> float:
        return self.treatment - self.control


def summarize(numerator: np.ndarray, denominator: np.ndarray, covariate: np.ndarray) -> Aggregates:
    """Return the count, means, variances and covariances of columns (N,) of the units of one arm."""
    columns = np.stack([numerator, denominator, covariate]).astype(float)
    count = columns.shape[1]
    mean = columns.mean(axis=1) if count else np.zeros(3)
    away = columns - mean[:, None]
    moments = away @ away.T / max(count - 1, 1)
    pairs = [(i, j) for i in range(3) for j in range(i)]
    return Aggregates(
        count_=count,
        mean_={name: float(value) for name, value in zip(NAMES, mean, strict=True)},
        var_={name: float(moments[i, i]) for i, name in enumerate(NAMES)},
        cov_={(NAMES[i], NAMES[j]): float(moments[i, j]) for i, j in pairs},
    )


def compare_ratios(arms: Sequence[Aggregates], treatment: int) -> RatioEffect | None:
    """Compare the ratio of arm number `treatment` with that of arm 0; None where a denominator or an arm is empty.

    The coefficient of the covariate is that of all arms together.
    """
    pair = (arms[0], arms[treatment])
    if any(arm.count() < 2 or arm.mean("denominator") <= 0 for arm in pair):
        return None
    total = sum(arms[1:], arms[0])
    spread = total.var("covariate")
    slope = total.ratio_cov("numerator", "denominator", "covariate", None) / spread if spread > 0 else 0.0
    ratio, variance, plain = np.array([_adjust(arm, slope, total.mean("covariate")) for arm in pair]).T
    positive = bool((ratio > 0).all())
    return RatioEffect(
        control=float(ratio[0]),
        treatment=float(ratio[1]),
        error=float(np.sqrt(variance.sum())),
        log_error=float(np.sqrt((variance / ratio**2).sum())) if positive else float("nan"),
        reduction=float(1 - variance.sum() / plain.sum()) if plain.sum() > 0 else 0.0,
        units=pair[0].count() + pair[1].count(),
    )


def estimate_ratio(arm: Aggregates) -> tuple[float, float, float]:
    """Return one arm's ratio, the variance of this estimate with CUPED, and the variance without."""
    spread = arm.var("covariate")
    slope = arm.ratio_cov("numerator", "denominator", "covariate", None) / spread if spread > 0 else 0.0
    return _adjust(arm, slope, arm.mean("covariate"))


def _adjust(arm: Aggregates, slope: float, mean: float) -> tuple[float, float, float]:
    """Return an arm's ratio after CUPED, the variance of this estimate, and the variance without CUPED."""
    ratio = arm.mean("numerator") / arm.mean("denominator")
    plain = arm.ratio_var("numerator", "denominator")
    both = arm.ratio_cov("numerator", "denominator", "covariate", None)
    variance = max(plain + slope**2 * arm.var("covariate") - 2 * slope * both, 0.0)
    return ratio - slope * (arm.mean("covariate") - mean), variance / arm.count(), plain / arm.count()
