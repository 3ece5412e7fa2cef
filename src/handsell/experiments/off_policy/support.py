"""Support: the share of a candidate's impressions that the log could have shown, and refusal without it.

The mean weight of a position is the probability that the candidate shows there an item that the log could show: an item
that the log never shows at this position contributes nothing to it. The log knows nothing of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.errors import HandsellError
from handsell.experiments.off_policy.estimators import SlateRewards, divide
from handsell.experiments.off_policy.intervals import Estimate, bound_mean

REQUIRED_SHARE = 0.95  # of the impressions of a slate, or of a position
REQUIRED_WEIGHT = 30.0  # impressions of equal weight, of a slate or of a position


class NoSupport(HandsellError):
    """The log cannot say what a candidate would have earned."""


@dataclass(frozen=True, slots=True)
class Support:
    """By position (n,), and for the slate as a whole."""

    share: tuple[Estimate, ...]  # of the candidate's impressions at this position that the log could have shown
    effective: np.ndarray  # (n,) number of impressions of equal weight that would be as informative: (Σw)² ÷ Σw²
    largest: np.ndarray  # (n,) largest weight
    slate_share: Estimate
    slate_effective: float

    @property
    def is_sufficient(self) -> np.ndarray:
        """(n,) bool, whether the log can speak about the position."""
        enough = np.array([share.high >= REQUIRED_SHARE for share in self.share], bool)
        return enough & (self.effective >= REQUIRED_WEIGHT)

    def require_slate(self) -> None:
        """Raise NoSupport unless the log can speak about whole slates."""
        if refusal := self.describe_refusal():
            raise NoSupport(refusal)

    def describe_refusal(self) -> str:
        """Return why the slate's value cannot be estimated and what to do; empty if it can."""
        share = self.slate_share
        if share.high < REQUIRED_SHARE:
            return (
                f"the log could have shown {share.value:.1%} of the candidate's impressions (95 % interval "
                f"{share.low:.1%} to {share.high:.1%}), expected at least {REQUIRED_SHARE:.0%}: its value for the rest "
                "is unknown. Set `share` and `positions` in [reranking.exploration] and collect impressions, or try a "
                "candidate that is closer to what was shown"
            )
        if self.slate_effective < REQUIRED_WEIGHT:
            return (
                f"the log is worth {self.slate_effective:.1f} impressions of the candidate, expected at least "
                f"{REQUIRED_WEIGHT:.0f}: it rarely shows what the candidate would. Collect more impressions, raise "
                "`share` in [reranking.exploration], or try a candidate that is closer to what was shown"
            )
        return ""


def measure_support(logged: SlateRewards, weights: np.ndarray) -> Support:
    """Measure the support of unclipped weights (N, n)."""
    shown, n = logged.shown, weights.shape[1]
    each = [bound_mean(weights[shown[:, k], k], logged.user[shown[:, k]]) for k in range(n)]
    length = np.maximum(shown.sum(axis=1).mean(), np.finfo(float).tiny)
    whole = bound_mean(weights.sum(axis=1) / length, logged.user)
    return Support(
        share=tuple(_within_one(one) for one in each),
        effective=_effective(weights.sum(axis=0), (weights**2).sum(axis=0)),
        largest=weights.max(axis=0, initial=0.0),
        slate_share=_within_one(whole),
        slate_effective=float(_effective(weights.sum(), (weights**2).sum())),
    )


def _effective(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.nan_to_num(divide(np.square(total), squares))


def _within_one(share: Estimate) -> Estimate:
    """A share is at most 1, which a mean of weights may exceed by chance."""
    return Estimate(*(float(np.clip(x, 0.0, 1.0)) for x in (share.value, share.low, share.high)))
