"""Item activity by day, and the item values that candidates are looked up in.

A value of day D covers the days before D ("as of yesterday"). Rows exist only for days on which a value
changes: the day after activity, and 1, 7 and 28 days later, when it leaves a window. So the latest row at
or before D is exact on every day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE
from handsell.core.units import DAY_US
from handsell.features.views import ITEM_ACTIVITY

WINDOWS_DAYS = (1, 7, 28)
NO_ACTIVITY = np.array([0, 0, 0, 0, np.nan, 0, 0], np.float32)  # of an item that nobody has touched


class ItemValues(Protocol):
    """Values of items as of yesterday: ITEM_ACTIVITY, then `features.item_columns`."""

    def gather(self, items: np.ndarray, time: np.ndarray) -> np.ndarray:
        """(B, K, Fi) float32 of items (B, K) at time (B,) µs; NaN where item is -1."""
        ...


@dataclass(frozen=True, slots=True)
class ItemDays:
    """N (item, day) counts or rows, sorted by item, then day."""

    item: np.ndarray  # (N,) int32
    day: np.ndarray  # (N,) int64 days since the epoch
    values: np.ndarray  # (N, F)

    def __len__(self) -> int:
        return len(self.item)


def day_counts(item: np.ndarray, time: np.ndarray, weight: np.ndarray, acted: np.ndarray) -> ItemDays:
    """Positive events and interactions of each item on each day; values (N, 2) float64. `acted` (M,) bool."""
    keep = acted | (weight > 0)
    values = np.stack([weight[keep] > 0, acted[keep]], axis=1).astype(np.float64)
    return merged(ItemDays(item[keep], time[keep] // DAY_US, values))


def merged(counts: ItemDays) -> ItemDays:
    """Sum rows of the same item and day; the parts of many partitions laid end to end."""
    order = np.lexsort((counts.day, counts.item))
    item, day, values = counts.item[order], counts.day[order], counts.values[order]
    if not len(item):
        return counts
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(item) != 0) | (np.diff(day) != 0)]))
    return ItemDays(item[starts], day[starts], np.add.reduceat(values, starts, axis=0))


def item_activity(counts: ItemDays) -> ItemDays:
    """Rows (N', 7) float32 in the order of ITEM_ACTIVITY from merged day counts."""
    if not len(counts):
        return ItemDays(counts.item, counts.day, np.zeros((0, len(ITEM_ACTIVITY)), np.float32))
    base, span = int(counts.day.min()), int(np.ptp(counts.day)) + max(WINDOWS_DAYS) + 3
    active = counts.item.astype(np.int64) * span + counts.day - base
    changes = np.unique(np.concatenate([active + after for after in (1, *(1 + w for w in WINDOWS_DAYS))]))
    item, day = changes // span, changes % span
    running = np.concatenate([np.zeros((1, 2)), np.cumsum(counts.values, axis=0)])

    def since(first: np.ndarray) -> np.ndarray:
        """(N', 2) sums over days first..day-1 of the row's own item."""
        return running[np.searchsorted(active, changes)] - running[np.searchsorted(active, item * span + first)]

    day1, day7, day28 = (since(np.maximum(day - w, 0)) for w in WINDOWS_DAYS)
    total = since(np.zeros_like(day))
    rate = np.divide(day28[:, 0], day28[:, 1], out=np.full(len(day), np.nan), where=day28[:, 1] > 0)
    trend = np.log((day7[:, 0] + 1) / (day28[:, 0] / 4 + 1))
    columns = (day1[:, 0], day7[:, 0], day28[:, 0], day28[:, 1], rate, trend, total[:, 0])
    return ItemDays(item.astype(np.int32), day + base, np.stack(columns, axis=1).astype(np.float32))


@dataclass(frozen=True)
class SnapshotValues:
    """Values in serving: those of the snapshot, whatever the time."""

    snapshot: Snapshot

    def gather(self, items: np.ndarray, time: np.ndarray) -> np.ndarray:
        return _blank(self.snapshot.values[np.maximum(items, 0)], items)


@dataclass(frozen=True)
class DailyValues:
    """Values by day in training: the latest row at or before the request's day."""

    keys: np.ndarray  # (N,) int64 item * span + day - base, sorted
    values: np.ndarray  # (N, Fa) float32
    static: np.ndarray  # (I, Fs) float32, the item columns
    base: int
    span: int

    @classmethod
    def of(cls, rows: ItemDays, static: np.ndarray) -> DailyValues:
        """From activity rows in any order, sparse (the job's) or one for each day asked (Feast's)."""
        if not len(rows):
            return cls(np.zeros(0, np.int64), np.zeros((0, len(ITEM_ACTIVITY)), np.float32), static, 0, 1)
        base, span = int(rows.day.min()), int(np.ptp(rows.day)) + 1
        keys = rows.item.astype(np.int64) * span + rows.day - base
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], rows.values[order].astype(np.float32), static, base, span)

    def gather(self, items: np.ndarray, time: np.ndarray) -> np.ndarray:
        at = np.maximum(items, 0)
        day = np.minimum(time // DAY_US - self.base, self.span - 1)[:, None]
        own = at.astype(np.int64) * self.span
        place = np.searchsorted(self.keys, own + np.maximum(day, -1), side="right") - 1
        found = (place >= 0) & (day >= 0)
        out = np.empty((*items.shape, len(ITEM_ACTIVITY) + self.static.shape[1]), np.float32)
        if len(self.keys):
            found &= self.keys[np.maximum(place, 0)] >= own
            activity = np.where(found[:, :, None], self.values[np.maximum(place, 0)], NO_ACTIVITY)
        else:
            activity = np.broadcast_to(NO_ACTIVITY, (*items.shape, len(NO_ACTIVITY)))
        out[:, :, : len(ITEM_ACTIVITY)] = activity
        out[:, :, len(ITEM_ACTIVITY) :] = self.static[at]
        return _blank(out, items)

    def at(self, time: int) -> np.ndarray:
        """(I, Fi) values of every item at one time: what a snapshot holds."""
        return self.gather(np.arange(len(self.static))[None], np.array([time]))[0]


def _blank(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    values[items == NONE] = np.nan
    return values
