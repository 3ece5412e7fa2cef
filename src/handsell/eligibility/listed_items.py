"""Flags of items that may be shown, and the clearing of those that a request lists."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Ragged, Seen
from handsell.core.kernels import compiled

NO_ITEMS, NO_TIMES = np.zeros(0, np.int32), np.zeros(0, np.int64)


def flag_available(snapshot: Snapshot, items: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return (B, K) bool, whether items (B, K) are published, not expired and available at time (B,) µs."""
    s = snapshot
    if compiled is not None and items.size:
        flags = np.empty(items.shape, bool)
        compiled.flag_available(
            np.ascontiguousarray(items, np.int32), np.ascontiguousarray(s.published, np.int64),
            np.ascontiguousarray(s.expires, np.int64), np.ascontiguousarray(s.available, bool),
            np.ascontiguousarray(time, np.int64), flags,
        )  # fmt: skip
        return flags
    at, now = np.maximum(items, 0), time[:, None]
    return (items != NONE) & (s.published[at] <= now) & (now < s.expires[at]) & s.available[at]


def clear_listed(flags: np.ndarray, listed: Ragged, items: np.ndarray | None = None) -> None:
    """Clear flags (B, W) of a row's listed items: the columns of these numbers, or those with these items (B, W)."""
    if not len(listed.values) or not flags.size:
        return
    if compiled is not None:
        _clear_compiled(flags, listed, items, NO_TIMES, NO_TIMES, NO_TIMES)
    elif items is None:
        known = (listed.values >= 0) & (listed.values < flags.shape[1])
        flags[listed.row_of_value[known], listed.values[known]] = False
    else:
        for b, row in enumerate(items):
            flags[b] &= ~np.isin(row, listed.row(b))


def clear_repeats(
    flags: np.ndarray, seen: Seen, time: np.ndarray, after: np.ndarray, items: np.ndarray | None = None
) -> None:
    """Clear flags as `clear_listed`, of items seen less than `after` (B,) µs before time (B,); 0 for all: of none."""
    if not len(seen.item.values) or not flags.size or not after.any():
        return
    if compiled is not None:
        _clear_compiled(flags, seen.item, items, seen.time.values, time, after)
    else:
        clear_listed(flags, find_repeats(seen, time, after), items)


def find_repeats(seen: Seen, time: np.ndarray, after: np.ndarray) -> Ragged:
    """Return (B, *) items seen less than `after` (B,) µs before time (B,); 0 for all: none."""
    if not after.any():
        return Ragged.empty(len(time))
    row = seen.item.row_of_value
    return seen.item.where((time[row] - seen.time.values) < after[row])


def _clear_compiled(
    flags: np.ndarray,
    listed: Ragged,
    items: np.ndarray | None,
    seen: np.ndarray,
    time: np.ndarray,
    after: np.ndarray,
) -> None:
    compiled.clear_listed(
        flags, NO_ITEMS if items is None else np.ascontiguousarray(items, np.int32),
        np.ascontiguousarray(listed.values, np.int32), np.ascontiguousarray(listed.offsets, np.int64),
        np.ascontiguousarray(seen, np.int64), np.ascontiguousarray(time, np.int64),
        np.ascontiguousarray(after, np.int64),
    )  # fmt: skip
