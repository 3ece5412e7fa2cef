"""Intervals of estimated values, with the slates of one user as one cluster.

analytic: value ± t · standard error of the linearized value, with one degree of freedom per effective user, since a few
large weights decide how well the standard error is known.
bootstrap: quantiles of the value over resamples of users.
studentized: the quantiles of (resampled value − value) ÷ its standard error, times the standard error of the value.

`benchmarks/off_policy` measures how often each covers the truth (docs/decisions/027-off-policy.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from handsell.evaluation.intervals import TAILS, draw_sums, sum_by_user
from handsell.experiments.off_policy.estimators import Terms, compute_influence, divide, sum_positions

Method = Literal["analytic", "bootstrap", "studentized"]
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class ValueEstimates:
    """The value of each position and of the slate."""

    positions: tuple[Estimate, ...]
    slate: Estimate

    def widen(self, positions: np.ndarray, slate: float) -> ValueEstimates:
        """Return the same values with intervals that allow for a bias of positions (n,) and of the slate."""
        each = (_widen(one, bias) for one, bias in zip(self.positions, positions.tolist(), strict=True))
        return ValueEstimates(tuple(each), _widen(self.slate, slate))


def _widen(found: Estimate, bias: float) -> Estimate:
    return replace(found, low=found.low - bias, high=found.high + bias)


def estimate_values(
    terms: Terms, user: np.ndarray, method: Method = "analytic", against: Terms | None = None, seed: int = 0
) -> ValueEstimates:
    """Estimate the values of terms, or their differences from those of `against` on the same slates."""
    sides = [terms] if against is None else [terms, against]
    values = np.append(*_subtract([(side.positions, np.array([side.slate])) for side in sides]))
    of_position, of_slate = _subtract([compute_influence(side) for side in sides])
    influence = np.column_stack([of_position, of_slate])
    if method == "bootstrap":
        low, high = _resample_values(sides, user, seed)
    else:
        low, high = _bound_means(influence, user, method, seed)
        low, high = values + low, values + high
    each = [Estimate(*map(float, one)) for one in zip(values, low, high, strict=True)]
    return ValueEstimates(tuple(each[:-1]), each[-1])


def bound_mean(values: np.ndarray, user: np.ndarray) -> Estimate:
    """Return the mean of values (N,) with its analytic interval."""
    mean = float(values.mean()) if len(values) else float("nan")
    low, high = _bound_means((values - mean)[:, None], user, "analytic", 0)
    return Estimate(mean, mean + float(low[0]), mean + float(high[0]))


def _subtract(sides: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if len(sides) == 1:
        return sides[0]
    (a, b), (c, d) = sides
    return a - c, b - d


def _bound_means(influence: np.ndarray, user: np.ndarray, method: Method, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds (M,) of means of N rows whose influence (N, M) has the mean 0."""
    sums, _ = sum_by_user(influence, user)
    n, users = len(influence), len(sums)
    if users < 2:
        return np.full(influence.shape[1], -np.inf), np.full(influence.shape[1], np.inf)
    squares = (sums**2).sum(axis=0)
    error = np.sqrt(squares * users / (users - 1)) / n
    if method == "analytic":
        effective = divide(squares**2, (sums**4).sum(axis=0))
        t = stats.t.ppf(TAILS[1], np.clip(np.nan_to_num(effective, nan=1.0) - 1, 1, users - 1))
        return -t * error, t * error
    drawn = draw_sums(np.concatenate([sums, sums**2], axis=1), RESAMPLES, seed)
    total, square = np.split(drawn, 2, axis=1)
    spread = np.sqrt(np.maximum(square - total**2 / users, 0) * users / (users - 1))
    ratio = np.divide(total, spread, out=np.zeros(total.shape), where=spread > 0)
    low, high = np.quantile(ratio, TAILS, axis=0)
    return -high * error, -low * error


def _resample_values(sides: list[Terms], user: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return quantiles of the values of positions and slate (n + 1,), or of their difference, over resampled users."""
    parts = [np.column_stack([t.numerator, t.denominator, t.shown]) for t in sides]
    sums, counts = sum_by_user(np.column_stack(parts), user)
    drawn = draw_sums(np.column_stack([sums, counts]), RESAMPLES, seed)
    size, found = drawn[:, -1:], []
    for side in np.split(drawn[:, :-1], len(sides), axis=1):
        numerator, denominator, shown = np.split(side, 3, axis=1)
        value = divide(numerator, denominator)
        found.append(np.column_stack([value, sum_positions(value, shown / size)]))
    values = found[0] if len(found) == 1 else found[0] - found[1]
    low, high = np.nanquantile(values, TAILS, axis=0)
    return low, high
