"""What a candidate is worth whatever else is in the slate, and how much diversity suits a user."""

from __future__ import annotations

import numpy as np

from handsell.config import RerankingConfig
from handsell.core.batches import NONE, Profile
from handsell.features.item import ItemValues
from handsell.reranking.mmr import relevance

POPULARITY = "item_positives_total"  # positive events so far
NEUTRAL = 0.5  # breadth of a user of whom no tag is known: the configured diversity as it is


def worth(
    dials: RerankingConfig, relevant: np.ndarray, diversity: np.ndarray, surprise: np.ndarray, unlike: np.ndarray
) -> np.ndarray:
    """(B, K) float64 from relevance, surprise and unlikeness to the history, (B, K) in 0..1; diversity (B,).

    Serendipity asks for all three at once (@ge2010beyond): relevant, not what popularity alone would show, and not
    like what the user knows already.
    """
    value = (1 - diversity)[:, None] * relevant
    if dials.novelty:
        value = value + dials.novelty * surprise
    if dials.serendipity:
        value = value + dials.serendipity * relevant * surprise * unlike
    return (1 - dials.calibration) * value


def surprise(items: ItemValues, item: np.ndarray, time: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """(B, K) in 0..1: self-information −log₂ p(item), from positive events so far, stretched within the request.

    1 for the request's least popular candidate, 0 for its most popular; one is added to every count. 0 for all where
    the catalog has no activity.
    """
    if POPULARITY not in items.names:
        return np.zeros(item.shape)
    values = items.gather(item, time)[:, :, items.names.index(POPULARITY)]
    count = np.nan_to_num(values.astype(np.float64))
    return relevance(-np.log2(count + 1), allowed)


def breadth(profile: Profile, tags: int) -> np.ndarray:
    """(B,) in 0..1: entropy of a user's positive tag affinities over that of liking all equally; `tags` exist."""
    weight = np.where((profile.tag != NONE) & (profile.tag_weight > 0), profile.tag_weight, 0.0).astype(np.float64)
    total = weight.sum(axis=1, keepdims=True)
    share = weight / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    most = np.log(max(min(tags, weight.shape[1]), 2))
    return np.where(total[:, 0] > 0, np.minimum(entropy / most, 1), NEUTRAL)


def own_diversity(dials: RerankingConfig, profile: Profile, tags: int) -> np.ndarray:
    """(B,) in 0..1: `diversity`, by `diversity_by_taste` less for users of narrow taste and more for broad ones."""
    if not dials.diversity_by_taste:
        return np.full(len(profile.tag), dials.diversity)
    factor = 1 + dials.diversity_by_taste * (2 * breadth(profile, tags) - 1)
    return np.clip(dials.diversity * factor, 0, 1)
