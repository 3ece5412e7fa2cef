"""Windows in time: retrieval | ranker | validation | test, and the requests that fall into each.

A request stands at the start of a stretch of a user's events; what counts as relevant are the items of
positive weight in that stretch. `by_time` cuts at moments and takes a session as the stretch.
`leave_last_k` cuts each user's own events and takes `test_k` of them at a time: for thin data, where a
cut in time leaves few users on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from handsell.core.batches import Ragged
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.data.config import SplitConfig
from handsell.data.interactions import Interactions

RETRIEVAL, RANKER, VALIDATION, TEST = 0, 1, 2, 3
WINDOWS = ("retrieval", "ranker", "validation", "test")
AS_IT_WAS = -1


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where by_time windows begin, µs; events from `test` on belong to the test window."""

    ranker: int
    validation: int
    test: int

    @classmethod
    def of(cls, split: SplitConfig, last_us: int) -> Bounds:
        """Count back from just after the last event."""
        end = last_us + 1
        test = end - int(split.test_days * DAY_US)
        validation = test - int(split.validation_days * DAY_US)
        return cls(validation - int(split.ranker_days * DAY_US), validation, test)


@dataclass(frozen=True, slots=True)
class WindowRequests:
    """R requests of one window, with what followed each."""

    user: np.ndarray  # (R,) int32
    time: np.ndarray  # (R,) int64 µs: what came before it is the user's past
    away: np.ndarray  # (R,) int64 µs since the user's last event when asked; AS_IT_WAS: the stretch came after it
    acted: Ragged  # (R, *) int32 items that the user acted on
    gain: Ragged  # (R, *) float32 their total weight, parallel to `acted`; ≤ 0 is a refusal
    shown: Ragged  # (R, *) int32 items of impressions in the stretch
    position: Ragged  # (R, *) int16 parallel to `shown`, 0 where not logged
    propensity: Ragged  # (R, *) float32 parallel to `shown`, NaN where not logged

    RAGGED: ClassVar = {
        "acted": np.int32, "gain": np.float32, "shown": np.int32, "position": np.int16, "propensity": np.float32,
    }  # fmt: skip

    def __len__(self) -> int:
        return len(self.user)


def window_of_events(events: Interactions, acted: np.ndarray, split: SplitConfig, bounds: Bounds) -> np.ndarray:
    """(N,) int8 window of each event; `acted` (N,) bool marks interactions as against impressions."""
    if split.kind == "by_time":
        cuts = np.array([bounds.ranker, bounds.validation, bounds.test])
        return np.searchsorted(cuts, events.time, side="right").astype(np.int8)
    left = _acted_from_here(events, acted)
    last = np.cumsum([split.test_k, split.validation_k, split.ranker_k])
    window = (TEST - np.searchsorted(last, left, side="left")).astype(np.int8)
    # A user with no history before the ranker window teaches the retrievers only.
    enough = np.bincount(events.user[acted], minlength=events.n_users) > last[-1]
    return np.where(enough[events.user], window, RETRIEVAL).astype(np.int8)


def stretches(
    events: Interactions, acted: np.ndarray, window: np.ndarray, split: SplitConfig, gap_us: int
) -> np.ndarray:
    """(N,) int64 number of the stretch that each event belongs to, rising along the log."""
    new = np.ones(len(events), bool)
    same_user = events.user[1:] == events.user[:-1]
    new[1:] = ~same_user | (window[1:] != window[:-1])
    if split.kind == "by_time":
        new[1:] |= np.diff(events.time) > gap_us
        return np.cumsum(new) - 1
    # leave_last_k: count interactions from the end of the window backwards, test_k at a time
    last = np.cumsum([0, split.test_k, split.validation_k, split.ranker_k])
    left = _acted_from_here(events, acted)
    in_window = left - last[np.minimum(TEST - window, 3)] - 1
    chunk = np.maximum(in_window, 0) // split.test_k
    new[1:] |= (chunk[1:] != chunk[:-1]) & (window[1:] != RETRIEVAL)
    return np.cumsum(new) - 1


def window_requests(
    events: Interactions,
    acted: np.ndarray,
    slate: tuple[np.ndarray, np.ndarray],
    window: np.ndarray,
    stretch: np.ndarray,
    which: int,
) -> WindowRequests:
    """Requests of window `which` that have at least one relevant item.

    `slate` = position (N,) int16, 0 unknown, and propensity (N,) float32, NaN unknown, of impressions.
    """
    inside = window == which
    total, items, of = _sum_by_item(events, inside & acted, stretch)
    keep = np.unique(of[total > 0])
    first = np.searchsorted(stretch, keep, side="left")
    outcome = _ragged(keep, of, items, total)
    rows = inside & ~acted
    shown = _ragged(keep, stretch[rows], events.item[rows], *(column[rows] for column in slate))
    return WindowRequests(events.user[first], events.time[first], np.full(len(keep), AS_IT_WAS), *outcome, *shown)


def requests_at_once(
    events: Interactions,
    acted: np.ndarray,
    slate: tuple[np.ndarray, np.ndarray],
    window: np.ndarray,
    split: SplitConfig,
    begin_us: int,
    end_us: int,
    which: int,
) -> WindowRequests:
    """All users of window `which` asked at one moment, as a service asks its bundle: one request each.

    What follows is all that the user did in the window. by_time: the moment is `begin_us`, where the window begins.
    leave_last_k: it is `end_us`, the end of the data, so that each has been away since the event before their window.
    """
    new = np.ones(len(events), bool)
    new[1:] = (events.user[1:] != events.user[:-1]) | (window[1:] != window[:-1])
    found = window_requests(events, acted, slate, window, np.cumsum(new) - 1, which)
    if split.kind == "by_time":
        return replace(found, time=np.full(len(found), begin_us))
    first = np.flatnonzero(new & (window == which))
    row = first[np.searchsorted(events.user[first], found.user)]
    before = np.maximum(row - 1, 0)
    known = (row > 0) & (events.user[before] == found.user)
    return replace(found, away=np.where(known, end_us - events.time[before], AS_IT_WAS))


def sample(requests: WindowRequests, share: float) -> WindowRequests:
    """Keep about `share` of the requests, chosen by hash of user and time: the same ones in every run."""
    if share >= 1:
        return requests
    mixed = requests.user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + requests.time.astype(np.uint64)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    keep = np.flatnonzero((mixed >> np.uint64(11)).astype(np.float64) / 2**53 < share)
    rows = (getattr(requests, name).take(keep) for name in WindowRequests.RAGGED)
    return WindowRequests(requests.user[keep], requests.time[keep], requests.away[keep], *rows)


def _acted_from_here(events: Interactions, acted: np.ndarray) -> np.ndarray:
    """(N,) how many interactions the user has from this event on, itself included."""
    upto = np.cumsum(acted)
    ends = np.searchsorted(events.user, events.user, side="right") - 1
    return upto[ends] - upto + acted


def _sum_by_item(events: Interactions, rows: np.ndarray, stretch: np.ndarray) -> tuple[np.ndarray, ...]:
    """Total weight of each (stretch, item) pair: totals, items, stretches; sorted by stretch."""
    key = stretch[rows] * np.int64(events.n_items) + events.item[rows]
    pairs, inverse = np.unique(key, return_inverse=True)
    total = np.bincount(inverse, weights=events.weight[rows], minlength=len(pairs)).astype(np.float32)
    return total, (pairs % events.n_items).astype(np.int32), pairs // events.n_items


def _ragged(keep: np.ndarray, of: np.ndarray, *columns: np.ndarray) -> tuple[Ragged, ...]:
    """Columns grouped by stretch for the stretches in `keep`; `of` is sorted."""
    wanted = np.isin(of, keep)
    counts = np.bincount(np.searchsorted(keep, of[wanted]), minlength=len(keep))
    offsets = offsets_from_counts(counts)
    return tuple(Ragged(column[wanted], offsets) for column in columns)
