"""Sessions: consecutive liked events of a user without a long pause between them.

`cut_sessions` gives the sessions that retrievers are fitted on, `find_current_sessions` those of requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import NONE, Requests
from handsell.core.kernels import compiled
from handsell.core.offsets import expand_segments, mark_run_starts, offsets_from_counts
from handsell.core.units import MINUTE_US
from handsell.data.interactions import Interactions

MAX_EVENTS = 100  # longer sessions, such as of a playlist left running, are cut to bound their cost


@dataclass(frozen=True, slots=True)
class Sessions:
    """N sessions, newest first by start; session n is item[offsets[n]:offsets[n + 1]] in time order."""

    item: np.ndarray  # (E,) int32
    offsets: np.ndarray  # (N + 1,) int64
    time: np.ndarray  # (N,) int64 µs, first event

    def __len__(self) -> int:
        return len(self.time)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def session_of_event(self) -> np.ndarray:
        """(E,) int64 session number of each event."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def place(self) -> np.ndarray:
        """(E,) int64 position of each event in its session, from 0."""
        return np.arange(len(self.item)) - self.offsets[self.session_of_event]

    def take_newest(self, n: int) -> Sessions:
        return self.take(slice(n))

    def with_at_least(self, events: int) -> Sessions:
        """Return the sessions of at least this number of events."""
        return self.take(self.lengths >= events)

    def take(self, which: slice | np.ndarray) -> Sessions:
        lengths, starts = self.lengths[which], self.offsets[:-1][which]
        at, _ = expand_segments(starts, starts + lengths)
        return Sessions(self.item[at], offsets_from_counts(lengths), self.time[which])


def cut_sessions(interactions: Interactions, gap_minutes: float) -> Sessions:
    """Cut each user's events of positive weight into sessions, at pauses longer than the gap."""
    liked = interactions.positives
    starts = _find_starts(liked.user, liked.time, gap_minutes)
    lengths = np.diff(np.append(starts, len(liked)))
    newest = np.argsort(-liked.time[starts], kind="stable")
    by_user = Sessions(liked.item, offsets_from_counts(lengths), liked.time[starts])
    return by_user.take(newest)


def _find_starts(user: np.ndarray, time: np.ndarray, gap_minutes: float) -> np.ndarray:
    """Return the rows at which a session starts, given rows ordered by user and time."""
    new = mark_run_starts(user)
    new[1:] |= np.diff(time) > gap_minutes * MINUTE_US
    start = np.flatnonzero(new)
    place = np.arange(len(user)) - np.repeat(start, np.diff(np.append(start, len(user))))
    return np.flatnonzero(place % MAX_EVENTS == 0)


def find_current_sessions(requests: Requests, n_items: int, gap_minutes: float, min_weight: float = 0.0) -> np.ndarray:
    """Return the distinct items (B, T) int32 of each request's last session, newest first, padded with -1.

    The last session may have ended long ago. Events at or after the request's time, items beyond `n_items`, dislikes
    and events of less than `min_weight` are ignored.
    """
    past = requests.history
    if compiled is not None and past.item.size:
        out = np.empty(past.item.shape, np.int32)
        compiled.find_sessions(
            np.ascontiguousarray(past.item, np.int32), np.ascontiguousarray(past.time, np.int64),
            np.ascontiguousarray(past.weight, np.float32), np.ascontiguousarray(requests.time, np.int64), out,
            n_items, gap_minutes * MINUTE_US, min_weight,
        )  # fmt: skip
        return out
    valid = (past.item >= 0) & (past.item < n_items) & (past.weight > 0) & (past.time < requests.time[:, None])
    wanted = past.weight >= min_weight
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
