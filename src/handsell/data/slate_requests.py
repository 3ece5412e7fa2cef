"""Requests of a window from the slates shown in it: each slate with what its user did in the hours after it."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import NONE
from handsell.core.offsets import expand_segments
from handsell.data.interactions import Interactions
from handsell.data.splits import AS_LOGGED, WindowRequests, group_rows


def build_slate_requests(
    events: Interactions,
    acted: np.ndarray,
    slate: tuple[np.ndarray, np.ndarray],
    recommendation: np.ndarray,
    begin_us: int,
    end_us: int,
    outcome_us: int,
) -> WindowRequests:
    """Build a request at the time of each slate in [begin_us, end_us) that was followed by something relevant.

    The outcome of a slate is what its user did within `outcome_us` after it, and later with its recommendation id, but
    nothing from `end_us` on. Rows of `events` that are not `acted` (N,) bool are shown items; `slate` has their
    position (N,) int16 and propensity (N,) float32. `recommendation` (N,) is the number of the slate that an item was
    shown in, or that an interaction follows from; NONE where it is unknown.
    """
    inside = (events.time >= begin_us) & (events.time < end_us)
    rows = np.flatnonzero(inside & ~acted & (recommendation != NONE))
    rows = rows[np.argsort(recommendation[rows], kind="stable")]
    slates, first, of = np.unique(recommendation[rows], return_index=True, return_inverse=True)
    user, time = events.user[rows[first]], np.minimum.reduceat(events.time[rows], first) if len(rows) else np.zeros(0)
    done = np.flatnonzero(inside & acted)
    pairs = np.concatenate(
        [
            _pair_by_time(events, done, user, time.astype(np.int64), outcome_us),
            _pair_by_recommendation(recommendation[done], slates),
        ]
    )
    pairs = np.unique(pairs, axis=0)
    which, event = pairs[:, 0], done[pairs[:, 1]]
    linked = (events.user[event] == user[which]) & (events.time[event] >= time[which])
    which, event = which[linked], event[linked]
    key, inverse = np.unique(which * np.int64(events.n_items) + events.item[event], return_inverse=True)
    total = np.bincount(inverse, weights=events.weight[event], minlength=len(key)).astype(np.float32)
    of_total, item = key // events.n_items, (key % events.n_items).astype(np.int32)
    keep = np.unique(of_total[total > 0])
    outcome = group_rows(keep, of_total, item, total)
    shown = group_rows(keep, of, events.item[rows], *(column[rows] for column in slate))
    return WindowRequests(user[keep], time[keep].astype(np.int64), np.full(len(keep), AS_LOGGED), *outcome, *shown)


def _pair_by_time(
    events: Interactions, done: np.ndarray, user: np.ndarray, time: np.ndarray, outcome_us: int
) -> np.ndarray:
    """Return (slate, place in `done`) of the interactions of the same user within `outcome_us` after each slate."""
    begin, end = (_locate(events, done, user, at) for at in (time, time + outcome_us))
    place, which = expand_segments(begin, end)
    return np.stack([which, place], axis=1)


def _locate(events: Interactions, done: np.ndarray, user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the place in `done` (sorted by user and time) of the user's first interaction at `time` or later."""
    times = np.unique(events.time[done])
    keys = events.user[done] * np.int64(len(times) + 1) + np.searchsorted(times, events.time[done])
    return np.searchsorted(keys, user * np.int64(len(times) + 1) + np.searchsorted(times, time))


def _pair_by_recommendation(recommendation: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """Return (slate, place) of the interactions that name a slate."""
    at = np.minimum(np.searchsorted(slates, recommendation), max(len(slates) - 1, 0))
    named = (slates[at] == recommendation) if len(slates) else np.zeros(len(recommendation), bool)
    return np.stack([at[named], np.flatnonzero(named)], axis=1).astype(np.int64)
