"""The times at which a user's row is written, and the user states at these times.

A row is written for each time at which training may request one: the start of every stretch of its windows (a session,
or k events with leave_last_k), explicitly requested times, and the end of the log. A time is represented by the number
of the user's last event before it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from handsell.config import Config
from handsell.core.offsets import expand_segments, mark_run_starts
from handsell.core.units import DAY_US
from handsell.data import splits
from handsell.data.interactions import Interactions
from handsell.events.fold import fold
from handsell.events.states import Events, FoldRules, ItemAttributes, UserStates

MARGIN_DAYS = 1.0
NEVER = np.iinfo(np.int64).max


def compute_window_start(config: Config, meta: dict) -> int:
    """Return the time from which every session gets a row; NEVER with leave_last_k, which has no time windows."""
    split = config.split
    if split.kind != "by_time":
        return NEVER
    days = split.ranker_days + split.validation_days + split.test_days + MARGIN_DAYS
    return int(meta["last_us"] - days * DAY_US)


def find_last_events(
    events: Interactions, config: Config, meta: dict, requested: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Return the numbers (M,) of the last events before each time, ascending; events are sorted by user, then time.

    `requested` = (users (R,), times (R,) µs). A time before the user's first event gets no row: the user is new then.
    """
    if not len(events):
        return np.zeros(0, np.int64)
    starts = events.user_offsets
    last = [starts[1:] - 1, _before_stretches(events, config, meta)]
    start = compute_window_start(config, meta)
    users = np.arange(events.n_users)
    if start != NEVER:
        last.append(find_last_before(events, users, np.full(len(users), start)))
    if requested is not None:
        last.append(find_last_before(events, *requested))
    every = np.unique(np.concatenate(last))
    return every[every >= 0]


def fold_at(
    events: Interactions, last: np.ndarray, items: ItemAttributes, rules: FoldRules
) -> Iterator[tuple[np.ndarray, UserStates, np.ndarray]]:
    """Yield (users (B,), states, whether it is the user's latest time (B,)) after the events `last` (M,).

    Round r yields the r-th time of every user that has one. It folds only the events since round r - 1.
    """
    user = events.user[last]
    first = mark_run_starts(user)
    group = np.cumsum(first) - 1
    rank = np.arange(len(user)) - np.flatnonzero(first)[group]
    size = np.bincount(group)[group] if len(user) else rank
    begin = np.where(first, events.user_offsets[user], np.concatenate([[0], last[:-1] + 1]))
    states, active = rules.empty_states(int(first.sum())), np.flatnonzero(first)
    for r in range(int(rank.max(initial=-1)) + 1):
        now = np.flatnonzero(rank == r)
        if r:
            states = states.take(size[active] > r)
        active = now
        which, row = expand_segments(begin[now], last[now] + 1)
        fresh = Events.of(row, *(getattr(events, f)[which] for f in ("item", "type", "time", "weight")))
        states = fold(states, fresh, items, rules)
        yield user[now], states, size[now] == r + 1


def _before_stretches(events: Interactions, config: Config, meta: dict) -> np.ndarray:
    """Return the last events before the stretches of the ranker, validation and test windows (see `data.splits`)."""
    seen = np.array([kind.seen for kind in config.events.types.values()], bool)
    acted = seen[events.type]
    window = splits.assign_windows(events, acted, config.split, splits.Bounds.of(config.split, meta["last_us"]))
    gap_us = config.events.session_gap_us
    stretch = splits.number_stretches(events, acted, window, config.split, gap_us)
    new = np.flatnonzero(np.diff(stretch)) + 1
    new = new[events.user[new] == events.user[new - 1]]  # a user's first event has no past
    late = (window[new] != splits.RETRIEVAL) | (events.time[new] >= compute_window_start(config, meta))
    return new[late] - 1


def find_last_before(events: Interactions, user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the number of each user's last event strictly before a time (R,); -1 without one."""
    n, r = len(events), len(user)
    users, times = np.concatenate([user, events.user]), np.concatenate([time, events.time])
    order = np.lexsort((np.repeat([0, 1], [r, n]), times, users))  # an event at the requested time is not before it
    is_event = order >= r
    before = np.cumsum(is_event) - 1
    last = np.empty(r, np.int64)
    last[order[~is_event]] = before[~is_event]
    return np.where((last >= 0) & (events.user[np.maximum(last, 0)] == user), last, -1)
