"""What is liked more than its past leads to expect: a short memory against a long one.

An item's likes of the short memory are compared with its share of the long memory's, in standard errors of a Poisson
count. The level of the whole shop cancels out: on a busy day not everything trends.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.data.interactions import Interactions
from handsell.retrieval.config import OptionalSource, RetrieverPlugin
from handsell.retrieval.models.popularity import Popularity, sum_decayed

SEARCH = {"half_life_days": (1.0, 0.5, 3.0), "long_half_life_days": (14.0, 7.0, 28.0)}


class TrendingConfig(OptionalSource):
    half_life_days: float = Field(1.0, gt=0, description="age at which an interaction counts half in the short memory")
    long_half_life_days: float = Field(14.0, gt=0, description="likewise in the long one, which says what to expect")
    prior: float = Field(5.0, gt=0, description="weight added to what is expected; damps items with few likes")


class Trending(Popularity):
    """`popularity` (I,) is the excess; zero for what does not trend."""

    name: ClassVar[str] = "trending"


def fit_trending(interactions: Interactions, config: TrendingConfig, content: object = None) -> Trending:
    """(short - expected) / √(expected + prior), where that is positive."""
    liked = interactions.positives
    short, long = (
        sum_decayed(liked, days).astype(np.float64) for days in (config.half_life_days, config.long_half_life_days)
    )
    expected = long * (short.sum() / max(long.sum(), 1e-300))
    excess = (short - expected) / np.sqrt(expected + config.prior)
    return Trending(np.maximum(excess, 0).astype(np.float32))


RETRIEVER = RetrieverPlugin(
    "trending",
    TrendingConfig,
    Trending,
    fit_trending,
    purpose="what rises now, by context",
    needs="times",
    order=11,
    personal=False,
    search=SEARCH,
)
