"""Base of the rankers of this package: raw scores, calibrated to probabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from handsell.ranking.calibration import Calibration


class CalibratedRanker(ABC):
    """A `Ranker` that orders by raw scores."""

    calibration: Calibration

    @abstractmethod
    def raw(self, x: np.ndarray) -> np.ndarray:
        """Return raw scores (B, K) float32 of features (B, K, F)."""

    def score(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of a positive (B, K) float32 from features (B, K, F) float32, NaN = missing."""
        return self.calibrate(self.raw(x))

    def calibrate(self, raw: np.ndarray) -> np.ndarray:
        """Return probabilities float32 of raw scores of any shape; the order is kept."""
        return self.calibration(raw)
