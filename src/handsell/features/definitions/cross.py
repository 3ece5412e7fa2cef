"""Cross features: relations of a candidate to the user's past, as of the request's time."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import ALWAYS
from handsell.core.batches import NONE
from handsell.core.units import DAY_US, HOUR_US
from handsell.events.states import MAX_AWAY_DAYS
from handsell.features.crosses import Occurrences, Pairs
from handsell.features.registry import feature


@feature("creator_affinity", group="cross", default=0.0, on_demand=True)
def creator_affinity(pairs: Pairs) -> np.ndarray:
    """The user's affinity to the item's creator."""
    profile = pairs.requests.profile
    return pairs.look_up_creators(profile.creator, profile.creator_weight)


@feature("tag_affinity", group="cross", default=0.0, on_demand=True)
def tag_affinity(pairs: Pairs) -> np.ndarray:
    """The user's mean affinity to the item's tags."""
    profile = pairs.requests.profile
    return pairs.sum_tag_weights(profile.tag, profile.tag_weight) / np.maximum(pairs.tag_count, 1)


@feature("times_in_history", group="cross", default=0.0, on_demand=True)
def times_in_history(pairs: Pairs) -> np.ndarray:
    """Occurrences of the item in the history."""
    return pairs.same_item.count


@feature("hours_since_item", group="cross", on_demand=True)
def hours_since_item(pairs: Pairs) -> np.ndarray:
    """Hours since the item was last in the history, at most 90 days."""
    return _hours_since(pairs.same_item, pairs.requests.time)


@feature("history_place", group="cross")
def history_place(pairs: Pairs) -> np.ndarray:
    """Place of the item among the distinct items of the history; 0 is the latest."""
    return pairs.history_place


@feature("hours_since_creator", group="cross")
def hours_since_creator(pairs: Pairs) -> np.ndarray:
    """Hours since an item of the same creator was last in the history, at most 90 days."""
    return _hours_since(pairs.same_creator, pairs.requests.time)


@feature("creator_share", group="cross", default=0.0)
def creator_share(pairs: Pairs) -> np.ndarray:
    """Share of the history that is of the item's creator."""
    length = (pairs.requests.history.item != NONE).sum(axis=1)
    return pairs.same_creator.count / np.maximum(length, 1)[:, None]


@feature("last_item_similarity", group="cross", default=0.0)
def last_item_similarity(pairs: Pairs) -> np.ndarray:
    """Cosine between the tags of the item and of the latest item of the history."""
    return pairs.compare_tags(pairs.requests.history.item[:, -1])


@feature("item_age_days", group="cross", on_demand=True)
def item_age_days(pairs: Pairs) -> np.ndarray:
    """Days since publication; below 0 before it."""
    known = pairs.published != ALWAYS
    return np.where(known, (pairs.requests.time[:, None] - np.where(known, pairs.published, 0)) / DAY_US, np.nan)


def _hours_since(found: Occurrences, time: np.ndarray) -> np.ndarray:
    """(B, K) hours from the latest occurrence to time (B,); NaN without one."""
    return np.where(found.count > 0, np.minimum((time[:, None] - found.latest) / HOUR_US, 24 * MAX_AWAY_DAYS), np.nan)
