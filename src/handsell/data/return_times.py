"""How long users stay away: the pauses that requests of training and evaluation are asked with.

Windows cut by counting a user's last events ask every request the moment after the event before, and windows cut in
time ask only users who did come back within the window. A service is asked by everybody else, too: e-mail and push go
to all users at one moment. So requests are also asked after pauses drawn from two distributions of the data itself:
how long users stayed away before they returned, and how long they have been away when the data ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from handsell.core.hashing import uniform
from handsell.data.interactions import Interactions

SHORTEST_US = 60_000_000
BINS_PER_DOUBLING = 4
DOUBLINGS = 23  # from a minute to sixteen years
BINS = BINS_PER_DOUBLING * DOUBLINGS
DRAWN_SHARE = 0.5  # of the requests of training and validation; the others are asked when users came back


@dataclass(frozen=True, slots=True)
class ReturnTimes:
    """Counts (2, BINS) int64 by length, in logarithmic bins from one minute on: pauses that ended, pauses that last."""

    counts: np.ndarray

    @classmethod
    def of(cls, events: Interactions, session_gap_us: int, end_us: int) -> Self:
        """Pauses longer than a session gap, and from each user's last event to the end of the data."""
        same_user = events.user[1:] == events.user[:-1]
        pause = np.diff(events.time)[same_user]
        last = events.time[np.append(~same_user, True)] if len(events) else events.time
        return cls(np.stack([_binned(pause[pause > session_gap_us]), _binned(end_us - last)]))

    def __add__(self, other: ReturnTimes) -> ReturnTimes:
        return ReturnTimes(self.counts + other.counts)

    def draw(self, user: np.ndarray, time: np.ndarray) -> np.ndarray:
        """(R,) int64 µs, one pause for each request (user, time), the same in every run.

        Half from each distribution, or all from the one that has any; one minute where neither has.
        """
        chances = [counts / counts.sum() for counts in self.counts if counts.any()]
        if not chances:
            return np.full(len(user), SHORTEST_US)
        upto = np.cumsum(np.mean(chances, axis=0))
        place = np.searchsorted(upto, uniform(1, user, time) * upto[-1], side="right")
        within = uniform(2, user, time)
        return (SHORTEST_US * np.exp2((np.minimum(place, BINS - 1) + within) / BINS_PER_DOUBLING)).astype(np.int64)


def drawn_for(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(R,) bool: requests that are asked after a drawn pause."""
    return uniform(3, user, time) < DRAWN_SHARE


def _binned(pause_us: np.ndarray) -> np.ndarray:
    ratio = np.maximum(pause_us, SHORTEST_US) / SHORTEST_US
    return np.bincount(np.minimum(np.log2(ratio) * BINS_PER_DOUBLING, BINS - 1).astype(np.int64), minlength=BINS)
