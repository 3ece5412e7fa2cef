"""Windows of the log (retrieval | ranker | validation | test) and the requests in each.

A request is placed at the start of a stretch of a user's events; relevant are the items of positive weight in the
stretch. `by_time` cuts at fixed times, and a stretch is a session. `leave_last_k` cuts the events of each user, and a
stretch is `test_k` interactions: for sparse data, where a cut in time leaves few users on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from handsell.core.batches import Ragged
from handsell.core.offsets import mark_run_starts, offsets_from_counts
from handsell.core.units import DAY_US
from handsell.data.config import SplitConfig
from handsell.data.interactions import Interactions

RETRIEVAL, RANKER, VALIDATION, TEST = 0, 1, 2, 3
WINDOWS = ("retrieval", "ranker", "validation", "test")
AS_LOGGED = -1  # the request keeps its logged time


@dataclass(frozen=True, slots=True)
class Bounds:
    """Start times of the by_time windows, µs; the test window has no end."""

    ranker: int
    validation: int
    test: int

    @classmethod
    def of(cls, split: SplitConfig, last_us: int) -> Bounds:
        """Count back from the end of the log, 1 µs after the last event."""
        end = last_us + 1
        test = end - int(split.test_days * DAY_US)
        validation = test - int(split.validation_days * DAY_US)
        return cls(validation - int(split.ranker_days * DAY_US), validation, test)


@dataclass(frozen=True, slots=True)
class WindowRequests:
    """R requests of one window and their outcomes."""

    user: np.ndarray  # (R,) int32
    time: np.ndarray  # (R,) int64 µs; earlier events are the user's past
    away: np.ndarray  # (R,) int64 µs from the user's last event to the request, or AS_LOGGED
    acted: Ragged  # (R, *) int32 items that the user interacted with
    gain: Ragged  # (R, *) float32 total weight of each, parallel to `acted`; ≤ 0 is a dislike
    shown: Ragged  # (R, *) int32 items of impressions in the stretch
    position: Ragged  # (R, *) int16 parallel to `shown`, 0 where not logged
    propensity: Ragged  # (R, *) float32 parallel to `shown`, NaN where not logged

    RAGGED: ClassVar = {
        "acted": np.int32, "gain": np.float32, "shown": np.int32, "position": np.int16, "propensity": np.float32,
    }  # fmt: skip

    def __len__(self) -> int:
        return len(self.user)


def assign_windows(events: Interactions, acted: np.ndarray, split: SplitConfig, bounds: Bounds) -> np.ndarray:
    """Return the window of each event, (N,) int8; `acted` (N,) bool marks interactions as opposed to impressions."""
    if split.kind == "by_time":
        cuts = np.array([bounds.ranker, bounds.validation, bounds.test])
        return np.searchsorted(cuts, events.time, side="right").astype(np.int8)
    left = _count_remaining(events, acted)
    last = np.cumsum([split.test_k, split.validation_k, split.ranker_k])
    window = (TEST - np.searchsorted(last, left, side="left")).astype(np.int8)
    # Users without history before the ranker window belong to the retrieval window only.
    enough = np.bincount(events.user[acted], minlength=events.n_users) > last[-1]
    return np.where(enough[events.user], window, RETRIEVAL).astype(np.int8)


def number_stretches(
    events: Interactions, acted: np.ndarray, window: np.ndarray, split: SplitConfig, gap_us: int
) -> np.ndarray:
    """Return the stretch of each event, (N,) int64, ascending along the log."""
    new = mark_run_starts(events.user, window)
    if split.kind == "by_time":
        new[1:] |= np.diff(events.time) > gap_us
        return np.cumsum(new) - 1
    # leave_last_k: test_k interactions each, counted from the end of the window
    last = np.cumsum([0, split.test_k, split.validation_k, split.ranker_k])
    left = _count_remaining(events, acted)
    in_window = left - last[np.minimum(TEST - window, 3)] - 1
    chunk = np.maximum(in_window, 0) // split.test_k
    new[1:] |= (chunk[1:] != chunk[:-1]) & (window[1:] != RETRIEVAL)
    return np.cumsum(new) - 1


def build_window_requests(
    events: Interactions,
    acted: np.ndarray,
    slate: tuple[np.ndarray, np.ndarray],
    window: np.ndarray,
    stretch: np.ndarray,
    which: int,
) -> WindowRequests:
    """Build the requests of window `which` that have at least one relevant item.

    `slate`: position (N,) int16, 0 where unknown, and propensity (N,) float32, NaN where unknown, of impressions.
    """
    inside = window == which
    total, items, of = _sum_by_item(events, inside & acted, stretch)
    keep = np.unique(of[total > 0])
    first = np.searchsorted(stretch, keep, side="left")
    outcome = group_rows(keep, of, items, total)
    rows = inside & ~acted
    shown = group_rows(keep, stretch[rows], events.item[rows], *(column[rows] for column in slate))
    return WindowRequests(events.user[first], events.time[first], np.full(len(keep), AS_LOGGED), *outcome, *shown)


def build_simultaneous_requests(
    events: Interactions,
    acted: np.ndarray,
    slate: tuple[np.ndarray, np.ndarray],
    window: np.ndarray,
    split: SplitConfig,
    begin_us: int,
    end_us: int,
    which: int,
) -> WindowRequests:
    """Build one request per user of window `which`, all at the same time, as in a batch of a service.

    The outcome is everything the user did in the window. by_time: the time is `begin_us`, the start of the window.
    leave_last_k: it is `end_us`, the end of the data; `away` counts from the event before the user's window.
    """
    new = mark_run_starts(events.user, window)
    found = build_window_requests(events, acted, slate, window, np.cumsum(new) - 1, which)
    if split.kind == "by_time":
        return replace(found, time=np.full(len(found), begin_us))
    first = np.flatnonzero(new & (window == which))
    row = first[np.searchsorted(events.user[first], found.user)]
    before = np.maximum(row - 1, 0)
    known = (row > 0) & (events.user[before] == found.user)
    return replace(found, away=np.where(known, end_us - events.time[before], AS_LOGGED))


def sample(requests: WindowRequests, share: float) -> WindowRequests:
    """Keep about `share` of the requests, chosen by hash of user and time, so the same in every run."""
    if share >= 1:
        return requests
    mixed = requests.user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + requests.time.astype(np.uint64)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    keep = np.flatnonzero((mixed >> np.uint64(11)).astype(np.float64) / 2**53 < share)
    rows = (getattr(requests, name).take(keep) for name in WindowRequests.RAGGED)
    return WindowRequests(requests.user[keep], requests.time[keep], requests.away[keep], *rows)


def _count_remaining(events: Interactions, acted: np.ndarray) -> np.ndarray:
    """Count the user's interactions from each event on, the event included, (N,)."""
    upto = np.cumsum(acted)
    ends = np.searchsorted(events.user, events.user, side="right") - 1
    return upto[ends] - upto + acted


def _sum_by_item(events: Interactions, rows: np.ndarray, stretch: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sum weights by (stretch, item); return totals, items and stretches, sorted by stretch."""
    key = stretch[rows] * np.int64(events.n_items) + events.item[rows]
    pairs, inverse = np.unique(key, return_inverse=True)
    total = np.bincount(inverse, weights=events.weight[rows], minlength=len(pairs)).astype(np.float32)
    return total, (pairs % events.n_items).astype(np.int32), pairs // events.n_items


def group_rows(keep: np.ndarray, of: np.ndarray, *columns: np.ndarray) -> tuple[Ragged, ...]:
    """Group columns by the number `of` (sorted) of each row's stretch or slate, for the numbers in `keep`."""
    wanted = np.isin(of, keep)
    counts = np.bincount(np.searchsorted(keep, of[wanted]), minlength=len(keep))
    offsets = offsets_from_counts(counts)
    return tuple(Ragged(column[wanted], offsets) for column in columns)
