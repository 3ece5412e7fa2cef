"""Support: the share of a candidate's impressions that the log could have shown, and refusal without it.

Where the log's policy can be run again, the share is counted among the candidate's items. Otherwise it is the mean
weight of a position: an item that the log never shows there contributes nothing to it. A mean over N slates may miss
what the log shows too rarely: with a least propensity p, up to 3 / (N p) of the candidate's impressions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.errors import HandsellError
from handsell.experiments.off_policy.estimators import SlateRewards, divide
from handsell.experiments.off_policy.intervals import Estimate, bound_mean

REQUIRED_SHARE = 0.95  # of the impressions of a slate, or of a position
UNSEEN = 3.0  # expected number of events of which none was seen, at 95 % (the rule of three)
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


def measure_support(logged: SlateRewards, weights: np.ndarray, reachable: np.ndarray | None = None) -> Support:
    """Measure the support of unclipped weights (N, n).

    `reachable` (N, n) bool: whether the log could have shown an item drawn from the candidate at this position.
    """
    shown, user = logged.shown, logged.user
    known, unseen = weights, np.zeros(weights.shape[1])
    if reachable is not None:
        known = reachable.astype(float)
    else:
        least = np.where(shown, logged.propensity, 1.0).min(axis=0, initial=1.0)
        unseen = UNSEEN / (np.maximum(shown.sum(axis=0), 1) * least)
    columns = [shown[:, k] for k in range(weights.shape[1])]
    each = [bound_mean(known[rows, k], user[rows]) for k, rows in enumerate(columns)]
    frequency = shown.mean(axis=0) / max(float(shown.mean(axis=0).sum()), np.finfo(float).tiny)
    length = np.maximum(shown.sum(axis=1).mean(), np.finfo(float).tiny)
    whole = bound_mean(np.where(shown, known, 0.0).sum(axis=1) / length, user)
    return Support(
        share=tuple(_within_one(one, more) for one, more in zip(each, unseen, strict=True)),
        effective=_effective(weights.sum(axis=0), (weights**2).sum(axis=0)),
        largest=weights.max(axis=0, initial=0.0),
        slate_share=_within_one(whole, float((unseen * frequency).sum())),
        slate_effective=float(_effective(weights.sum(), (weights**2).sum())),
    )


def _effective(total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.nan_to_num(divide(np.square(total), squares))


def _within_one(share: Estimate, unseen: float) -> Estimate:
    """A share is at most 1, which a mean of weights may exceed by chance."""
    return Estimate(*(float(np.clip(x, 0.0, 1.0)) for x in (share.value, share.low, share.high + unseen)))
