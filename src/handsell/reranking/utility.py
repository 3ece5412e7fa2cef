"""Utility of a candidate regardless of the rest of the slate, and the diversity for each user."""

from __future__ import annotations

import numpy as np

from handsell.config import RerankingConfig
from handsell.core.batches import NONE, Profile
from handsell.features.item import ItemValues, SnapshotValues
from handsell.reranking.mmr import scale_scores

POPULARITY = "item_positives_total"  # positive events so far
NEUTRAL = 0.5  # breadth of a user without tags: the configured diversity applies


def compute_utility(
    settings: RerankingConfig, relevant: np.ndarray, diversity: np.ndarray, surprise: np.ndarray, unlike: np.ndarray
) -> np.ndarray:
    """Return (B, K) float64 from relevance, surprise and dissimilarity to the history, (B, K) in 0..1; diversity (B,).

    Serendipity is the product of the three (@ge2010beyond): relevant, not popular, and unlike the user's history.
    """
    value = (1 - diversity)[:, None] * relevant
    if settings.novelty:
        value = value + settings.novelty * surprise
    if settings.serendipity:
        value = value + settings.serendipity * relevant * surprise * unlike
    return (1 - settings.calibration) * value


def compute_surprise(items: ItemValues, item: np.ndarray, time: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return (B, K) in 0..1, the self-information −log₂ p(item) by positive events, scaled within the request.

    1 for the request's least popular candidate, 0 for its most popular; one is added to every count. 0 for all without
    a count of positive events.
    """
    if POPULARITY not in items.names:
        return np.zeros(item.shape)
    column = items.names.index(POPULARITY)
    if isinstance(items, SnapshotValues):
        values = items.gather_one(item, column)
    else:
        values = items.gather(item, time)[:, :, column]
    count = np.where(np.isnan(values), 0, values).astype(np.float64)
    return scale_scores(-np.log2(count + 1), allowed)


def compute_breadth(profile: Profile, tags: int) -> np.ndarray:
    """Return (B,) in 0..1, the entropy of a user's positive tag affinities, relative to equal ones for all `tags`."""
    weight = np.where((profile.tag != NONE) & (profile.tag_weight > 0), profile.tag_weight, 0.0).astype(np.float64)
    total = weight.sum(axis=1, keepdims=True)
    share = weight / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=1)
    most = np.log(max(min(tags, weight.shape[1]), 2))
    return np.where(total[:, 0] > 0, np.minimum(entropy / most, 1), NEUTRAL)


def personalize_diversity(settings: RerankingConfig, profile: Profile, tags: int) -> np.ndarray:
    """Return (B,) in 0..1: `diversity`, lowered for users with few tags and raised for many by `diversity_by_taste`."""
    if not settings.diversity_by_taste:
        return np.full(len(profile.tag), settings.diversity)
    factor = 1 + settings.diversity_by_taste * (2 * compute_breadth(profile, tags) - 1)
    return np.clip(settings.diversity * factor, 0, 1)
