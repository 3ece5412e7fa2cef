"""Sample ratio mismatch: are there as many units in each arm as its share says?

A mismatch means that assignment or logging is broken, and that no effect can be believed (@fabijan2019srm). Two tests:
chi-square at one look, and a sequential test of @lindon2022srm, whose p-value holds over all looks together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, gammaln, ndtr, xlogy

from handsell.experiments.analysis.ratios import compare_ratios, summarize

LOOK_LEVEL = 0.001  # of chi-square at one look
SEQUENTIAL_LEVEL = 0.01  # over all looks
CONCENTRATION = 100.0  # of the Dirichlet prior around the expected shares: deviations of about 5 points
TOLERANCE = 0.05  # difference of slates per unit that is too small to be a defect of logging


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Units in each arm beside those expected, and the p-values of both tests."""

    counts: tuple[int, ...]
    expected: tuple[float, ...]  # shares, which add up to 1
    p_value: float  # chi-square
    sequential_p_value: float

    @property
    def failed(self) -> bool:
        return self.p_value < LOOK_LEVEL or self.sequential_p_value < SEQUENTIAL_LEVEL


def check_sample_ratio(counts: np.ndarray | Sequence, shares: np.ndarray | Sequence) -> SampleRatio:
    """Test counts of units (A,) against the shares of the A arms; no units is no mismatch.

    Where shares have changed, both are (P, A), one row per period between changes.
    """
    observed = np.atleast_2d(np.asarray(counts, float))
    share = np.atleast_2d(np.asarray(shares, float))
    share = share / share.sum(axis=1, keepdims=True)
    total, expected = observed.sum(axis=0), (observed.sum(axis=1, keepdims=True) * share).sum(axis=0)
    used = expected > 0
    whole = expected.sum()
    both = tuple(total.astype(int).tolist()), tuple((expected / whole if whole else share[-1]).tolist())
    if total[~used].any():  # an arm without a share has units
        return SampleRatio(*both, 0.0, 0.0)
    statistic = float(((total - expected)[used] ** 2 / expected[used]).sum())
    p = float(chdtrc(used.sum() - 1, statistic)) if used.sum() > 1 else 1.0
    logs = sum(_compute_log_ratio(row[of > 0], of[of > 0]) for row, of in zip(observed, share, strict=True))
    return SampleRatio(*both, p, float(np.exp(min(0.0, logs))))


def _compute_log_ratio(counts: np.ndarray, shares: np.ndarray) -> float:
    """Return the log Bayes factor of the expected shares against others, drawn from a Dirichlet around them."""
    prior = CONCENTRATION * shares
    other = gammaln(CONCENTRATION) - gammaln(CONCENTRATION + counts.sum())
    other += (gammaln(prior + counts) - gammaln(prior)).sum()
    return float(xlogy(counts, shares).sum() - other)


@dataclass(frozen=True, slots=True)
class LoggingRatio:
    """Slates per unit on the first day, in each arm beside control."""

    ratios: tuple[float, ...]
    p_value: float  # the smallest of the arms

    @property
    def failed(self) -> bool:
        return self.p_value < LOOK_LEVEL and max(abs(ratio - 1) for ratio in self.ratios) > TOLERANCE


def check_logging_ratio(slates: np.ndarray, arm: np.ndarray, arms: int) -> LoggingRatio:
    """Test whether arms log equally many slates (N,) per unit on its first day of exposure, clustered by unit.

    Users' habits hardly change within a day: an arm that logs twice or loses slates differs by more than TOLERANCE.
    """
    one, none = np.ones(len(slates)), np.zeros(len(slates))
    sums = [summarize(slates[arm == a], one[arm == a], none[arm == a]) for a in range(arms)]
    ratios, p = [], 1.0
    for a in range(1, arms):
        effect = compare_ratios(sums, a)
        if effect is None or effect.control <= 0:
            ratios.append(1.0)
            continue
        ratios.append(effect.treatment / effect.control)
        p = min(p, float(2 * ndtr(-abs(effect.difference) / effect.error)) if effect.error > 0 else 1.0)
    return LoggingRatio(tuple(ratios), p)
