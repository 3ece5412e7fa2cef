"""The spacing rule: never two items of one creator within `gap` positions, unless nothing else is left."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE

NAME = "same_creator_gap"  # as it stands in Slates.relaxed
COST = 1e4  # of standing too near: above anything that score and diversity can give, below -inf of "not allowed"


def too_near(creator: np.ndarray, gap: int) -> np.ndarray:
    """(B, n) bool: this slate position has a creator that one of the `gap` positions before it has too."""
    near = np.zeros(creator.shape, bool)
    for step in range(1, min(gap, creator.shape[1] - 1) + 1):
        near[:, step:] |= (creator[:, step:] == creator[:, :-step]) & (creator[:, step:] != NONE)
    return near
