"""Clipping of weights in the doubly robust estimate: a bound chosen from the data, and the bias that it may cause.

A few large weights decide the variance of an estimate. Clipped at a bound M, the weights of a position add up to less
than 1; for the rest, the estimate relies on the reward model alone. If no item's expected reward at a position lies
outside 0 to its largest prediction there, the bias is at most that prediction times the missing sum. M is the bound
with the shortest interval, the bias included (@armstrong2018optimal; clipping: @bottou2013counterfactual).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.experiments.off_policy.estimators import (
    Predictions,
    SlateRewards,
    build_terms,
    compute_influence,
    divide,
    sum_positions,
)
from handsell.experiments.off_policy.intervals import bound_mean

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)  # of the weights above 0: the bounds that are tried


@dataclass(frozen=True, slots=True)
class Clipping:
    """A bound of weights, infinite for none."""

    bound: float
    share: float  # of the shown items, whose weight is above the bound
    bias: np.ndarray  # (n,) largest bias of a position's value
    slate_bias: float

    def apply(self, weights: np.ndarray) -> np.ndarray:
        return np.minimum(weights, self.bound)


def choose_clipping(logged: SlateRewards, weights: np.ndarray, predicted: Predictions) -> Clipping:
    """Choose the bound of weights (N, n) for the doubly robust estimate; rewards are not negative."""
    positive = weights[weights > 0]
    tried = [np.inf, *np.unique(np.quantile(positive, QUANTILES))[::-1]] if len(positive) else [np.inf]
    found = [_clip(logged, weights, predicted, float(bound)) for bound in tried]
    widths = [_measure_error(logged, one.apply(weights), predicted) + one.slate_bias for one in found]
    return found[int(np.argmin(widths))]


def _clip(logged: SlateRewards, weights: np.ndarray, predicted: Predictions, bound: float) -> Clipping:
    shown, count = logged.shown, logged.shown.sum(axis=0)
    if not np.isfinite(bound):
        return Clipping(bound, 0.0, np.zeros(weights.shape[1]), 0.0)
    missing = np.maximum(1 - np.nan_to_num(divide(np.minimum(weights, bound).sum(axis=0), count), nan=1.0), 0.0)
    largest = np.where(shown, np.maximum(predicted.logged, predicted.candidate), 0.0).max(axis=0, initial=0.0)
    bias = missing * largest
    share = (weights > bound).sum() / max(count.sum(), 1)
    return Clipping(bound, float(share), bias, float(sum_positions(bias, shown.mean(axis=0))))


def _measure_error(logged: SlateRewards, weights: np.ndarray, predicted: Predictions) -> float:
    """Return half the width of the interval of the slate's value."""
    _, influence = compute_influence(build_terms("doubly_robust", logged, weights, predicted))
    return bound_mean(influence, logged.user).error
