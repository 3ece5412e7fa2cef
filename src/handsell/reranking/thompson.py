"""Thompson sampling with exact probabilities: each candidate is drawn as often as it is the best one.

The chance that a candidate interests the user is uncertain: around its calibrated score, the more widely the fewer
events the item has. Drawing one value for each candidate and taking the largest (@chapelle2011thompson) gives no
propensity. Here the probability of being the largest is computed first, on a grid, and the item is drawn from the
result: the logged propensity is exact, whatever the error of the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.data.late_scipy import special

CELLS = 40  # of the grid
WIDTH = 4.0  # standard deviations beyond which a value is not considered
LEAST_CHANCE = 1e-4  # scores are kept this far from 0 and 1, so that every candidate is uncertain


@dataclass(frozen=True, slots=True)
class ThompsonChoice:
    mean: np.ndarray  # (B, K) float64, finite
    deviation: np.ndarray  # (B, K) float64, positive

    @classmethod
    def of(cls, score: np.ndarray, events: np.ndarray, prior_strength: float) -> ThompsonChoice:
        """Build it from calibrated scores (B, K) in 0..1 and the events (B, K) of each item.

        The deviation is that of a beta distribution with the score as mean and prior_strength + events observations.
        """
        mean = np.clip(np.nan_to_num(score.astype(np.float64), nan=0.0), LEAST_CHANCE, 1 - LEAST_CHANCE)
        observed = prior_strength + np.maximum(np.nan_to_num(events.astype(np.float64)), 0)
        return cls(mean, np.sqrt(mean * (1 - mean) / (observed + 1)))

    def compute_chances(self, open_: np.ndarray) -> np.ndarray:
        """Return (B, K) the probability that each candidate of open_ (B, K) bool has the largest value among them."""
        some = open_.any(axis=1)
        low = np.where(open_, self.mean - WIDTH * self.deviation, -np.inf).max(axis=1)
        high = np.where(open_, self.mean + WIDTH * self.deviation, -np.inf).max(axis=1)
        low, high = np.where(some, low, 0.0), np.where(some, high, 1.0)
        edge = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, CELLS + 1)  # (B, cells + 1)
        below = special.ndtr(
            (edge[:, None, :] - self.mean[:, :, None]) / self.deviation[:, :, None]
        )  # (B, K, cells + 1)
        below[:, :, 0], below[:, :, -1] = 0.0, 1.0  # the outermost cells have what lies beyond them
        mass = np.diff(below, axis=2)
        smaller = np.log(np.maximum((below[:, :, 1:] + below[:, :, :-1]) / 2, 1e-300))
        others = np.where(open_[:, :, None], smaller, 0.0).sum(axis=1, keepdims=True) - smaller
        best = np.where(open_, (mass * np.exp(np.minimum(others, 0.0))).sum(axis=2), 0.0)
        return best / np.where(some, best.sum(axis=1), 1.0)[:, None]
