"""Pauses between a user's last event and a request, for training and evaluation.

leave_last_k places each request right after the previous event, and by_time has requests only of users who returned
within the window. A service also gets requests for all other users: e-mail and push slates are made for everybody at
one time. Therefore requests are also made after pauses drawn from two distributions of the data: the time that users
stayed away before they returned, and the time since their last event at the end of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from handsell.core.hashing import uniform
from handsell.core.units import MINUTE_US
from handsell.data.interactions import Interactions

SHORTEST_US = MINUTE_US
BINS_PER_DOUBLING = 4
DOUBLINGS = 23  # one minute to sixteen years
BINS = BINS_PER_DOUBLING * DOUBLINGS
DRAWN_SHARE = 0.5  # of the requests for training and validation; the others keep their logged time


@dataclass(frozen=True, slots=True)
class ReturnTimes:
    """Histograms (2, BINS) int64 of pauses, in logarithmic bins: those that ended, and those at the end of the data."""

    counts: np.ndarray

    @classmethod
    def of(cls, events: Interactions, session_gap_us: int, end_us: int) -> Self:
        """Count pauses longer than a session gap, and from each user's last event to the end of the data."""
        same_user = events.user[1:] == events.user[:-1]
        pause = np.diff(events.time)[same_user]
        last = events.time[np.append(~same_user, True)] if len(events) else events.time
        return cls(np.stack([_histogram(pause[pause > session_gap_us]), _histogram(end_us - last)]))

    def __add__(self, other: ReturnTimes) -> ReturnTimes:
        return ReturnTimes(self.counts + other.counts)

    def draw(self, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Draw a pause for each request (user, time), (R,) int64 µs, the same in every run.

        Both distributions have equal probability; an empty one is not used. One minute if both are empty.
        """
        chances = [counts / counts.sum() for counts in self.counts if counts.any()]
        if not chances:
            return np.full(len(user), SHORTEST_US)
        cumulative = np.cumsum(np.mean(chances, axis=0))
        place = np.searchsorted(cumulative, uniform(1, user, time) * cumulative[-1], side="right")
        within = uniform(2, user, time)
        return (SHORTEST_US * np.exp2((np.minimum(place, BINS - 1) + within) / BINS_PER_DOUBLING)).astype(np.int64)


def has_drawn_pause(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(R,) bool: requests that are made after a drawn pause, chosen by hash."""
    return uniform(3, user, time) < DRAWN_SHARE


def _histogram(pause_us: np.ndarray) -> np.ndarray:
    ratio = np.maximum(pause_us, SHORTEST_US) / SHORTEST_US
    return np.bincount(np.minimum(np.log2(ratio) * BINS_PER_DOUBLING, BINS - 1).astype(np.int64), minlength=BINS)
