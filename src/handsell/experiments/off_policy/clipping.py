"""Clipping of weights: a bound chosen from the data, and what it may cost.

A few large weights decide the variance of an estimate; clipping them at a bound makes it smaller and biased. The bound
minimizes an estimate of squared bias + variance of the slate's value (@bottou2013counterfactual clips, @su2020adaptive
chooses by that sum). It is the expected removal's square less its variance, so that noise does not count as bias:
clipping pays where fewer than about one of the removed contributions is expected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.evaluation.intervals import sum_by_user
from handsell.experiments.off_policy.estimators import SlateRewards, build_terms

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)  # of the weights above 0: the bounds that are tried
Z = 1.645  # the bias is below its bound with a probability of 95 %


@dataclass(frozen=True, slots=True)
class Clipping:
    """A bound of weights, infinite for none."""

    bound: float
    share: float  # of the shown items, whose weight is above the bound
    bias: float  # largest plausible change of a slate's value by clipping, in units of reward

    def apply(self, weights: np.ndarray) -> np.ndarray:
        return np.minimum(weights, self.bound)


NO_CLIPPING = Clipping(np.inf, 0.0, 0.0)


def choose_clipping(logged: SlateRewards, weights: np.ndarray) -> Clipping:
    """Choose the bound of weights (N, n)."""
    positive = weights[weights > 0]
    if len(positive) < 2:
        return NO_CLIPPING
    value = np.nan_to_num(build_terms("self_normalized", logged, weights).positions)
    residual = np.where(logged.shown, logged.reward - value, 0.0)
    best, least = NO_CLIPPING, np.inf
    for bound in (np.inf, *np.unique(np.quantile(positive, QUANTILES))[::-1]):
        clipped = np.minimum(weights, bound)
        removed = weights - clipped
        bias, spread = _mean_and_error((removed * residual).sum(axis=1), logged.user)
        _, error = _mean_and_error((clipped * residual).sum(axis=1), logged.user)
        loss = max(bias**2 - spread**2, 0.0) + error**2
        if loss < least:
            share = (removed > 0).sum() / max(logged.shown.sum(), 1)
            best, least = Clipping(float(bound), float(share), abs(bias) + Z * spread), loss
    return best


def _mean_and_error(values: np.ndarray, user: np.ndarray) -> tuple[float, float]:
    """Return the mean of values (N,) and its standard error with users as clusters."""
    mean = values.mean()
    sums, _ = sum_by_user((values - mean)[:, None], user)
    return float(mean), float(np.sqrt((sums**2).sum()) / len(values))
