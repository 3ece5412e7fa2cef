"""Estimators of a policy's value from the slates of another policy, by position and for the slate.

The item-position model (@li2018offline) takes the reward at a position to depend on the request, the item and the
position, not on the rest of the slate. With w = probability of the item at its position under the candidate ÷ under the
log, the value of a position is

    inverse propensity   Σ w · reward / slates
    self-normalized      Σ w · reward / Σ w                                         (@swaminathan2015self)
    doubly robust        Σ (model of the candidate's item + w · (reward − model of the logged item)) / slates
                                                                                    (@dudik2014doubly)

and the value of a slate is the sum over its positions. Every estimator is thus a sum over positions of a numerator
divided by a denominator, from which `intervals` computes errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from handsell.core.batches import RowBatch

Estimator = Literal["logged", "ips", "self_normalized", "doubly_robust"]


@dataclass(frozen=True, slots=True)
class SlateRewards(RowBatch):
    """N logged slates of at most n positions; cells where nothing was shown have a propensity of NaN."""

    reward: np.ndarray  # (N, n) float
    propensity: np.ndarray  # (N, n) float in (0, 1], probability of the item at its position under the log; NaN
    user: np.ndarray  # (N,) int, whose errors are correlated; -1: unknown, independent of all others

    def __post_init__(self) -> None:
        known = self.propensity[self.shown]
        if self.reward.shape != self.propensity.shape or len(self.user) != len(self.reward):
            raise ValueError(
                f"expected rewards and propensities (N, n) and users (N,), got {self.reward.shape}, "
                f"{self.propensity.shape} and {self.user.shape}"
            )
        if ((known <= 0) | (known > 1)).any() or not np.isfinite(self.reward[self.shown]).all():
            raise ValueError("expected propensities in (0, 1] and finite rewards where an item was shown")

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def shown(self) -> np.ndarray:
        """(N, n) bool, whether an item was shown at this position."""
        return ~np.isnan(self.propensity)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predicted rewards, from a model that was not fitted on the slate's user."""

    logged: np.ndarray  # (N, n) of the logged item at its position
    candidate: np.ndarray  # (N, n) expected over the items that the candidate shows at this position


@dataclass(frozen=True, slots=True)
class Terms(RowBatch):
    """Position k has the value Σ numerator ÷ Σ denominator; slates show it with the mean of `shown`."""

    numerator: np.ndarray  # (N, n) float
    denominator: np.ndarray  # (N, n) float
    shown: np.ndarray  # (N, n) bool

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def positions(self) -> np.ndarray:
        """(n,) value of each position; NaN where the denominator is 0."""
        return divide(self.numerator.sum(axis=0), self.denominator.sum(axis=0))

    @property
    def slate(self) -> float:
        """Sum of the positions' values, each as often as slates show it."""
        return float(sum_positions(self.positions, self.shown.mean(axis=0)))


def compute_weights(logged: SlateRewards, target: np.ndarray) -> np.ndarray:
    """Return w (N, n): target (N, n), the candidate's probability of each logged item, ÷ propensity; 0 if not shown."""
    if target.shape != logged.propensity.shape:
        raise ValueError(f"expected target probabilities {logged.propensity.shape}, got {target.shape}")
    shown = logged.shown
    known = target[shown]
    if not ((known >= 0) & (known <= 1 + 1e-9)).all():
        raise ValueError("expected target probabilities in 0..1 where an item was shown")
    return np.divide(target, logged.propensity, out=np.zeros(target.shape), where=shown)


def build_terms(
    estimator: Estimator, logged: SlateRewards, weights: np.ndarray, predicted: Predictions | None = None
) -> Terms:
    """Build the terms of an estimator for weights (N, n); `predicted` is required for doubly_robust."""
    shown = logged.shown
    reward, count = np.where(shown, logged.reward, 0.0), shown.astype(float)
    if estimator == "logged":
        return Terms(reward, count, shown)
    if estimator == "ips":
        return Terms(weights * reward, count, shown)
    if estimator == "self_normalized":
        return Terms(weights * reward, weights, shown)
    if predicted is None:
        raise ValueError("the doubly robust estimator needs predicted rewards")
    of_logged, of_candidate = (np.where(shown, p, 0.0) for p in (predicted.logged, predicted.candidate))
    return Terms(of_candidate + weights * (reward - of_logged), count, shown)


def compute_influence(terms: Terms) -> tuple[np.ndarray, np.ndarray]:
    """Return the influence of each slate on the positions' values (N, n) and on the slate's value (N,).

    Their means are 0; a value varies like the mean of its influence.
    """
    value = np.nan_to_num(terms.positions)
    scale = np.maximum(terms.denominator.mean(axis=0), np.finfo(float).tiny)
    of_position = (terms.numerator - terms.denominator * value) / scale
    frequency = terms.shown.mean(axis=0)
    of_slate = (of_position * frequency + (terms.shown - frequency) * value).sum(axis=1)
    return of_position, of_slate


def sum_positions(value: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Return the value of slates (…) from those of positions (…, n), each as often as it is shown (…, n)."""
    return np.where(frequency > 0, value * frequency, 0.0).sum(axis=-1)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a ÷ b, NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b != 0)
