"""Sessions: runs of a user's liked events without a long pause; and the session that a request is in.

What session_knn, transitions and bought_together learn from and are asked with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import NONE, Requests
from handsell.core.offsets import expand_segments, offsets_from_counts
from handsell.core.units import MINUTE_US
from handsell.data.interactions import Interactions

MOST_EVENTS = 100  # a longer run (a playlist left on) is cut, so that no session costs more than this


@dataclass(frozen=True, slots=True)
class Sessions:
    """N sessions, the one that began last first; session n is item[offsets[n]:offsets[n + 1]], oldest event first."""

    item: np.ndarray  # (E,) int32
    offsets: np.ndarray  # (N + 1,) int64
    time: np.ndarray  # (N,) int64 µs of the first event

    def __len__(self) -> int:
        return len(self.time)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def session_of_event(self) -> np.ndarray:
        """(E,) int64"""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def place(self) -> np.ndarray:
        """(E,) int64, 0 for the first event of a session."""
        return np.arange(len(self.item)) - self.offsets[self.session_of_event]

    def newest(self, n: int) -> Sessions:
        return self.take(slice(n))

    def of_length(self, least: int) -> Sessions:
        """Those of at least so many events."""
        return self.take(self.lengths >= least)

    def take(self, which: slice | np.ndarray) -> Sessions:
        lengths, starts = self.lengths[which], self.offsets[:-1][which]
        at, _ = expand_segments(starts, starts + lengths)
        return Sessions(self.item[at], offsets_from_counts(lengths), self.time[which])


def cut(interactions: Interactions, gap_minutes: float) -> Sessions:
    """The events of positive weight, a new session after a pause longer than the gap."""
    liked = interactions.positives
    starts = _starts(liked.user, liked.time, gap_minutes)
    lengths = np.diff(np.append(starts, len(liked)))
    newest = np.argsort(-liked.time[starts], kind="stable")
    by_user = Sessions(liked.item, offsets_from_counts(lengths), liked.time[starts])
    return by_user.take(newest)


def _starts(user: np.ndarray, time: np.ndarray, gap_minutes: float) -> np.ndarray:
    """Rows at which a session begins."""
    if not len(user):
        return np.zeros(0, np.int64)
    new = np.ones(len(user), bool)
    new[1:] = (np.diff(user) != 0) | (np.diff(time) > gap_minutes * MINUTE_US)
    start = np.flatnonzero(new)
    place = np.arange(len(user)) - np.repeat(start, np.diff(np.append(start, len(user))))
    return np.flatnonzero(place % MOST_EVENTS == 0)


def current(requests: Requests, n_items: int, gap_minutes: float, least_weight: float = 0.0) -> np.ndarray:
    """(B, T) int32 items of each request's last session, newest first, an item once, -1 where there is none.

    The last session may be long over: it is still the best evidence there is. Events at or after the request's
    time, items beyond the model's, disliked ones and those of less than `least_weight` do not count.
    """
    past = requests.history
    valid = (past.item >= 0) & (past.item < n_items) & (past.weight > 0) & (past.time < requests.time[:, None])
    wanted = past.weight >= least_weight
    out = np.full(past.item.shape, NONE, np.int32)
    for b in range(len(out)):
        at = np.flatnonzero(valid[b])
        if not len(at):
            continue
        pauses = np.flatnonzero(np.diff(past.time[b, at]) > gap_minutes * MINUTE_US)
        run = at[pauses[-1] + 1 if len(pauses) else 0 :]
        newest_first = past.item[b, run[wanted[b, run]]][::-1]
        first = np.sort(np.unique(newest_first, return_index=True)[1])
        out[b, : len(first)] = newest_first[first]
    return out
