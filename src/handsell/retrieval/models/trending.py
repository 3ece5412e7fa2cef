"""Items with more recent likes than their long-term likes predict.

An item's recent likes are compared with its share of the long-term likes, in standard errors of a Poisson count.
Changes of the total number of likes cancel out.
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
    half_life_days: float = Field(1.0, gt=0, description="half-life of recent likes by age")
    long_half_life_days: float = Field(14.0, gt=0, description="half-life of long-term likes by age")
    prior: float = Field(5.0, gt=0, description="added to the expected likes; reduces scores of items with few likes")


class Trending(Popularity):
    """`popularity` (I,) is the excess of likes; 0 for an item that does not trend."""

    name: ClassVar[str] = "trending"


def fit_trending(interactions: Interactions, config: TrendingConfig, content: object = None) -> Trending:
    """Score items by (recent - expected) / √(expected + prior), where that is positive."""
    liked = interactions.positives
    recent, long = (
        sum_decayed(liked, days).astype(np.float64) for days in (config.half_life_days, config.long_half_life_days)
    )
    expected = long * (recent.sum() / max(long.sum(), 1e-300))
    excess = (recent - expected) / np.sqrt(expected + config.prior)
    return Trending(np.maximum(excess, 0).astype(np.float32))


RETRIEVER = RetrieverPlugin(
    "trending",
    TrendingConfig,
    Trending,
    fit_trending,
    purpose="rising items are to be shown",
    needs="times",
    order=11,
    personal=False,
    search=SEARCH,
)
