"""Leave out bots by rate, and cap the counts of heavy users at a quantile of all arms together; both are reported.

The bounds are the same for every arm: bounds per arm would cut the effect itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from handsell.experiments.analysis.log.outcomes import UnitOutcomes

SLATES_PER_HOUR = 120.0  # a slate every 30 s for an hour
QUANTILE = 0.999
CAPPED = ("slates", "shown", "events", "before")  # clicks follow the items shown


@dataclass(frozen=True, slots=True)
class OutlierCounts:
    """Units of each arm that were left out as bots, and that had at least one count capped."""

    bots: tuple[int, ...]
    capped: tuple[int, ...]
    slates_per_hour: float
    quantile: float


def limit_outliers(
    outcomes: UnitOutcomes, slates_per_hour: float = SLATES_PER_HOUR, quantile: float = QUANTILE
) -> tuple[UnitOutcomes, OutlierCounts]:
    """Return the outcomes without bots and with capped counts.

    Where a unit was shown more items than the cap, its clicks shrink with them, so that its click rate stays.
    """
    bot = outcomes.busiest_hour > slates_per_hour
    kept = outcomes.select(~bot)
    touched, limited = np.zeros(len(kept), bool), {}
    for name in CAPPED:
        values = getattr(kept, name).astype(float)
        if not len(kept):
            continue
        over = values > (bound := find_cap(values, quantile))
        touched |= over if over.ndim == 1 else over.any(axis=1)
        limited[name] = np.minimum(values, bound)
    if len(kept):
        limited["clicks"] = kept.clicks * np.where(kept.shown > 0, limited["shown"] / np.maximum(kept.shown, 1), 1.0)
    size = len(outcomes.arms)
    bots = np.bincount(outcomes.arm[bot], minlength=size)
    capped = np.bincount(kept.arm[touched], minlength=size)
    return replace(kept, **limited), OutlierCounts(
        tuple(bots.tolist()), tuple(capped.tolist()), slates_per_hour, quantile
    )


def find_cap(values: np.ndarray, quantile: float) -> np.ndarray:
    """Return the quantile of each column of counts (N, …), at least 1: a rare event is not capped away."""
    return np.maximum(np.quantile(values, quantile, axis=0, method="higher"), 1.0)
