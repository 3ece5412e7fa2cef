"""Calibration: maps the ranker's raw margin to the probability that the user interacts with a retrieved candidate.

Isotonic regression gives steps, which would tie candidates with different margins. The knots are therefore the centers
of the steps, joined by lines (centered isotonic regression, @oron2017centered); the outermost lines are extended to the
ends of the data. The map is monotone. Where it is constant, outside the knots, candidates may tie, so that ranking
orders by the raw margin.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handsell.core.errors import BundleError


@dataclass(frozen=True, slots=True)
class Calibration:
    """M knots of a monotone map: linear between knots, constant beyond them."""

    raw: np.ndarray  # (M,) float64, ascending
    score: np.ndarray  # (M,) float64 in 0..1, non-decreasing

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Return probabilities float32 in 0..1 of raw margins of any shape; NaN stays NaN."""
        return np.interp(raw, self.raw, self.score).astype(np.float32)

    @classmethod
    def logistic(cls) -> Calibration:
        """Return the logistic function, for where no calibration can be fitted."""
        raw = np.linspace(-8.0, 8.0, 65)
        return cls(raw, 1 / (1 + np.exp(-raw)))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"raw": self.raw.tolist(), "score": self.score.tolist()}))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Load the knots; raises BundleError where they are not a monotone map into 0..1."""
        try:
            knots = json.loads(path.read_text())
            found = cls(np.array(knots["raw"], float), np.array(knots["score"], float))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path}: expected knots of a calibration, got {error!r}: roll back, or train again"
            ) from error
        if not found.is_sound():
            raise BundleError(f"{path}: expected ascending knots with scores in 0..1: roll back, or train again")
        return found

    def is_sound(self) -> bool:
        """Return whether the knots are a monotone map into 0..1."""
        return bool(
            len(self.raw) == len(self.score) > 0
            and np.isfinite(self.raw).all()
            and (np.diff(self.raw) > 0).all()
            and (np.diff(self.score) >= 0).all()
            and self.score[0] >= 0
            and self.score[-1] <= 1
        )


def fit_calibration(raw: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> Calibration:
    """Fit on N validation candidates; `weight` is the number of candidates that a sampled row represents.

    Returns `Calibration.logistic` without positives, without negatives, or for a constant margin.
    """
    use = np.isfinite(raw)
    raw = raw[use].astype(float).round(6)  # merges almost equal margins: slopes stay finite
    positive, weight = positive[use].astype(float), weight[use].astype(float)
    if not len(raw) or positive.min() == positive.max() or raw.min() == raw.max():
        return Calibration.logistic()
    from sklearn.isotonic import IsotonicRegression  # slow to import; only fitting needs it

    step = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(raw, positive, sample_weight=weight)
    level, block = np.unique(step.round(12), return_inverse=True)
    mass = np.bincount(block, weight)
    center = np.bincount(block, weight * raw) / mass
    if len(level) == 1:  # the order does not hold on validation: keep it, spread around the mean
        low, high = raw.min(), raw.max()
        return Calibration(np.array([low, high]), np.clip(level[0] * np.array([0.5, 1.5]), 0, 1))
    return _extend_to_ends(center, level, raw.min(), raw.max())


def _extend_to_ends(center: np.ndarray, level: np.ndarray, low: float, high: float) -> Calibration:
    """Add knots at the ends of the data, on the extension of the outermost lines."""
    slope = np.diff(level) / np.diff(center)
    knots, scores = center.tolist(), level.tolist()
    if high > knots[-1]:
        scores.append(min(1.0, level[-1] + slope[-1] * (high - knots[-1])))
        knots.append(high)
    if low < knots[0]:
        scores.insert(0, max(0.0, level[0] - slope[0] * (knots[0] - low)))
        knots.insert(0, low)
    return Calibration(np.array(knots), np.array(scores))
