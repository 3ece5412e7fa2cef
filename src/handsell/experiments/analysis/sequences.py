"""Always-valid confidence sequences: intervals and p-values that hold at every look at the same time.

The interval at a look is estimate ± `compute_width(y)` standard errors, where y is the information so far, 1 / SE², in
units of the prior variance of the effect. It is the asymptotic confidence sequence of @waudbysmith2024sequences with
Robbins' normal mixture; its p-values are those of @johari2022peeking. Information must be measured by the standard
error, not by the number of units: units that came long ago keep adding events.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import lambertw, ndtri

ALPHA = 0.05
POWER = 0.8


def tune_information(alpha: float = ALPHA) -> float:
    """Return the y at which the interval is narrowest for the data that it has, 8.2 for 5 %."""
    return float(-lambertw(-(alpha**2) / math.e, -1).real) - 1


def compute_width(y: np.ndarray | float, alpha: float = ALPHA) -> np.ndarray:
    """Return half the width of the interval in standard errors: 3.0 where y is as planned, infinite for y = 0."""
    y = np.asarray(y, float)
    with np.errstate(divide="ignore"):
        return np.sqrt((1 + 1 / y) * (np.log1p(y) - 2 * math.log(alpha)))


def compute_p_value(z: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """Return the always-valid p-value of an estimate of z standard errors: the smallest α whose interval excludes 0."""
    z, y = np.asarray(z, float), np.asarray(y, float)
    return np.minimum(1.0, np.exp(np.log1p(y) / 2 - z**2 * y / (1 + y) / 2))


def count_errors_to_detect(alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the effect, in standard errors at the planned end, that is found with `power` by then: 3.9."""
    return float(compute_width(tune_information(alpha), alpha) + ndtri(power))


@lru_cache
def tune_prior(smallest_effect: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the standard deviation of the mixture over effects that finds `smallest_effect` soonest.

    The sample size planned for this effect is the one at which the interval is narrowest. The prior must be set before
    the first look.
    """
    return smallest_effect / count_errors_to_detect(alpha, power) * math.sqrt(tune_information(alpha))
