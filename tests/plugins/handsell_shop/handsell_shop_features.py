"""When a user listens, and whether an item continues with the creator of the last one."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE
from handsell.core.units import DAY_US
from handsell.events.states import UserStates
from handsell.features.crosses import Pairs
from handsell.features.registry import feature


@feature("user_evening_share", group="user")
def evening_share(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Share of the history's interactions in the last quarter of the day (UTC)."""
    known = states.history.item != NONE
    evening = known & (states.history.time % DAY_US >= DAY_US * 3 // 4)
    return np.where(known.any(axis=1), evening.sum(axis=1) / np.maximum(known.sum(axis=1), 1), np.nan)


@feature("creator_of_last_item", group="cross", default=0.0)
def creator_of_last_item(pairs: Pairs) -> np.ndarray:
    """Whether the item has the creator of the user's latest interaction."""
    last = pairs.history_creator[:, -1:]
    return (pairs.creator == last) & (last != NONE)
