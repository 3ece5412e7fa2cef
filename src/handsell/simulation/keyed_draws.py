"""Random numbers by key: the same user, day, visit and item draw the same number under every policy."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from scipy.special import ndtri

from handsell.core.hashing import uniform


class Purpose(IntEnum):
    """What a number decides; numbers of different purposes are independent."""

    VISIT = 1
    DAYPART = 2
    HOUR = 3
    EXAMINE = 4
    PLAY = 5
    SKIP = 6
    DISAPPOINTMENT = 7
    LISTENED_SHARE = 8
    LIKE = 9
    SAVE = 10
    SHARE = 11
    LEAVE = 12
    RETURN = 13
    LURE = 14
    POLICY = 15
    ORGANIC_COUNT = 16
    ORGANIC_CHOICE = 17
    ORGANIC_LUCK = 18


def draw_keyed(seed: int, purpose: Purpose, *keys: np.ndarray | int) -> np.ndarray:
    """Return float64 in [0, 1) of the shape to which the integer keys broadcast."""
    first, *rest = np.broadcast_arrays(*keys)
    flat = [key.ravel() for key in (first, *rest)]
    return uniform(seed, np.full(first.size, int(purpose), np.int64), *flat).reshape(first.shape)


def draw_keyed_normal(seed: int, purpose: Purpose, *keys: np.ndarray | int) -> np.ndarray:
    """Return standard normal numbers of the shape to which the integer keys broadcast."""
    return ndtri(np.clip(draw_keyed(seed, purpose, *keys), 1e-12, 1 - 1e-12))
