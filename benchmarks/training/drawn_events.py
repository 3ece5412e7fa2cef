"""Events drawn at random, to measure the speed of training."""

from __future__ import annotations

import numpy as np

from handsell.core.units import HOUR_US
from handsell.data.interactions import Interactions


def draw_events(users: int, items: int) -> Interactions:
    """Draw 3 to 60 events per user on items of long-tailed popularity."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, users)
    user = np.repeat(np.arange(users, dtype=np.int32), lengths)
    item = np.minimum(rng.pareto(1.0, len(user)) * items / 50, items - 1).astype(np.int32)
    return Interactions(
        user, item, np.zeros(len(user), np.int8), np.arange(1, len(user) + 1) * HOUR_US,
        np.ones(len(user), np.float32), users, items,
    )  # fmt: skip
