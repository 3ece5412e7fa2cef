"""A test of two means that is valid however often it is looked at, for guard rails and the canary.

The evidence is an e-process: a product of factors whose expectation is at most 1 while the arm is harmless, so that the
probability that it ever exceeds 1 / level is at most `level` (Ville's inequality). The factors are those of
@turner2023exact for two streams: for an alternative (a*, c*), take the means (a, c) on the boundary of the null
hypothesis that are nearest to it in Kullback-Leibler divergence; an outcome x of the arm then gives the factor
1 + (a* - a) / (a (1 - a)) (x - a), and one of control likewise. The logarithm of their expectation is a concave
function of the true means, and 0 is its maximum over the null hypothesis, at that nearest point. Outcomes between 0 and
1 are allowed because the factors are linear in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LIFTS = np.array([0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 0.95])  # alternatives, as shares of the way from null to 1
BISECTIONS = 30
MEMORY = 5_000.0  # outcomes of control that its expected mean remembers
EDGE = 1e-6  # means of alternatives keep this distance from 0 and 1


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations of one arm in 0..1: `count` (V,) of each `value` (V,)."""

    value: np.ndarray
    count: np.ndarray

    @classmethod
    def of_share(cls, share: float) -> Observations:
        """One outcome."""
        return cls(np.array([share]), np.ones(1))

    @classmethod
    def of_successes(cls, successes: int, total: int) -> Observations:
        return cls(np.array([0.0, 1.0]), np.array([total - successes, successes], float))

    @property
    def total(self) -> float:
        return float(self.count.sum())

    @property
    def sum(self) -> float:
        return float(self.count @ self.value)


class ExcessTest:
    """Evidence against: the arm's mean is at most `margin` + `scale` × control's mean.

    The null hypothesis may hold with other means at each step. With `restarts` it is enough that it fails from some
    step on: the evidence is a mixture of processes that begin at each step, with weights that add up to 1.
    """

    def __init__(self, margin: float = 0.0, scale: float = 1.0, restarts: bool = True):
        self._margin, self._scale, self._restarts = margin, scale, restarts
        self._steps = 0
        self._log = np.full(len(LIFTS), -np.inf if restarts else 0.0)  # evidence of each alternative
        self._control = self._weight = 0.0  # sum and number of control's outcomes that are remembered
        self.peak = 1.0  # largest evidence so far

    @property
    def evidence(self) -> float:
        """At most 1 in expectation under the null hypothesis."""
        rest = 1.0 / (self._steps + 1) if self._restarts else 0.0
        return float(np.exp(np.minimum(self._log, 500.0)).mean() + rest)

    def add(self, arm: Observations, control: Observations) -> float:
        """Add outcomes of one step, independent given those before; returns the evidence.

        The first step only teaches control's mean.
        """
        if self._weight and arm.total and control.total:
            self._steps += 1
            if self._restarts:
                self._log = np.logaddexp(self._log, -np.log(self._steps * (self._steps + 1.0)))
            self._log = self._log + self._log_factor(arm, control)
            self.peak = max(self.peak, self.evidence)
        self._remember(control)
        return self.evidence

    def _remember(self, control: Observations) -> None:
        self._control, self._weight = self._control + control.sum, self._weight + control.total
        if self._weight > MEMORY:
            self._control, self._weight = self._control * MEMORY / self._weight, MEMORY

    def _log_factor(self, arm: Observations, control: Observations) -> np.ndarray:
        """(L,) logarithm of the factor of each alternative."""
        expected = (self._control + 0.5 * EDGE) / (self._weight + EDGE)
        c1 = np.full(len(LIFTS), np.clip(expected, EDGE, 1 - EDGE))
        bound = self._margin + self._scale * c1
        a1 = np.clip(bound + (1 - bound) * LIFTS, EDGE, 1 - EDGE)
        usable = a1 > bound + EDGE  # else this alternative is in the null hypothesis: no evidence
        c0 = self._nearest(a1, c1, arm.total, control.total)
        a0 = np.clip(self._margin + self._scale * c0, EDGE, 1 - EDGE)
        found = sum_logs(arm, a0, (a1 - a0) / (a0 * (1 - a0))) + sum_logs(control, c0, (c1 - c0) / (c0 * (1 - c0)))
        return np.where(usable, found, 0.0)

    def _nearest(self, a1: np.ndarray, c1: np.ndarray, arms: float, controls: float) -> np.ndarray:
        """(L,) control's mean at the point of the boundary that is nearest to the alternatives, by bisection."""
        low, high = c1, np.clip((a1 - self._margin) / self._scale, c1, 1 - EDGE)
        for _ in range(BISECTIONS):
            c0 = (low + high) / 2
            a0 = np.clip(self._margin + self._scale * c0, EDGE, 1 - EDGE)
            slope = arms * self._scale * (a0 - a1) / (a0 * (1 - a0)) + controls * (c0 - c1) / (c0 * (1 - c0))
            low, high = np.where(slope < 0, c0, low), np.where(slope < 0, high, c0)
        return (low + high) / 2


def sum_logs(observations: Observations, mean: np.ndarray, bet: np.ndarray) -> np.ndarray:
    """(L,) Σ log(1 + bet (x - mean)) over all outcomes, for bets and means (L,)."""
    factors = 1 + bet[:, None] * (observations.value[None] - mean[:, None])
    return np.log(np.maximum(factors, 1e-300)) @ observations.count
