"""What is liked more than its past leads to expect: a short memory against a long one.

An item's likes of the short memory are compared with its share of the long memory's, in standard errors of a Poisson
count. The level of the whole shop cancels out: on a busy day not everything trends.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from handsell.data.interactions import Interactions
from handsell.retrieval.config import TrendingConfig
from handsell.retrieval.models.popularity import Popularity, decayed

SEARCH = {"half_life_days": (1.0, 0.5, 3.0), "long_half_life_days": (14.0, 7.0, 28.0)}


class Trending(Popularity):
    """`popularity` (I,) is the excess; zero for what does not trend."""

    name: ClassVar[str] = "trending"


def fit_trending(interactions: Interactions, config: TrendingConfig, content: object = None) -> Trending:
    """(short - expected) / √(expected + prior), where that is positive."""
    liked = interactions.positives
    short, long = (
        decayed(liked, days).astype(np.float64) for days in (config.half_life_days, config.long_half_life_days)
    )
    expected = long * (short.sum() / max(long.sum(), 1e-300))
    excess = (short - expected) / np.sqrt(expected + config.prior)
    return Trending(np.maximum(excess, 0).astype(np.float32))
