"""Item activity by day, and the item values that candidates are looked up in.

A value of day D covers the days before D ("as of yesterday"). Rows exist only for days on which a value can change:
the day after activity, and the day on which the activity leaves each registered window. So the latest row at or
before D is exact on every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.errors import FeatureError
from handsell.core.offsets import mark_run_starts
from handsell.core.units import DAY_US
from handsell.features.registry import find_features


class ItemValues(Protocol):
    """Values of items as of yesterday."""

    @property
    def names(self) -> tuple[str, ...]:
        """The Fi columns, see `list_item_features`."""
        ...

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


def list_item_features(config: Config) -> tuple[str, ...]:
    """Return the registered item features, then the item columns."""
    return (*find_features("item"), *list_item_columns(config))


def list_item_columns(config: Config) -> tuple[str, ...]:
    """Return the feature names of `features.item_columns`."""
    return tuple(f"item_{name}" for name in config.features.item_columns)


def select_item_columns(snapshot: Snapshot, config: Config) -> np.ndarray:
    """(I, number of item columns) float32; raises FeatureError if the snapshot lacks one."""
    names = list_item_columns(config)
    if missing := [name for name in names if name not in snapshot.value_names]:
        raise FeatureError(
            f"expected {', '.join(missing)} in the item snapshot, got {', '.join(snapshot.value_names)}: run "
            "`handsell features CONFIG` again"
        )
    return np.asarray(snapshot.values)[:, [snapshot.value_names.index(name) for name in names]]


@cache
def get_untouched_values() -> np.ndarray:
    """(number of registered item features,) float32, read only: the values of an item without events."""
    values = np.array([found.default for found in find_features("item").values()], np.float32)
    values.flags.writeable = False
    return values


@cache
def list_activity_windows() -> tuple[int, ...]:
    """The windows in days of all registered item features, ascending."""
    return tuple(sorted({days for found in find_features("item").values() for days in found.windows_days}))


def count_days(item: np.ndarray, time: np.ndarray, weight: np.ndarray, acted: np.ndarray) -> ItemDays:
    """Positive events and interactions of each item on each day; values (N, 2) float64. `acted` (M,) bool."""
    keep = acted | (weight > 0)
    values = np.stack([weight[keep] > 0, acted[keep]], axis=1).astype(np.float64)
    return merge_days(ItemDays(item[keep], time[keep] // DAY_US, values))


def merge_days(counts: ItemDays) -> ItemDays:
    """Sum rows of the same item and day, such as those of several concatenated partitions."""
    order = np.lexsort((counts.day, counts.item))
    item, day, values = counts.item[order], counts.day[order], counts.values[order]
    if not len(item):
        return counts
    starts = np.flatnonzero(mark_run_starts(item, day))
    return ItemDays(item[starts], day[starts], np.add.reduceat(values, starts, axis=0))


@dataclass(frozen=True)
class ItemActivity:
    """N (item, day) pairs and sums over the days before: the input of item features."""

    item: np.ndarray  # (N,) int64
    day: np.ndarray  # (N,) int64 days since `base`
    base: int
    _span: int
    _active: np.ndarray  # (M,) int64 item * span + day of the merged counts, ascending
    _running: np.ndarray  # (M + 1, 2) float64 sums of positive events and interactions before each
    _sums: dict[int | None, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, counts: ItemDays) -> ItemActivity:
        """The pairs at which a value may change, from at least one merged day count."""
        windows = list_activity_windows()
        base, span = int(counts.day.min()), int(np.ptp(counts.day)) + max(windows, default=0) + 3
        active = counts.item.astype(np.int64) * span + counts.day - base
        changes = np.unique(np.concatenate([active + after for after in (1, *(1 + w for w in windows))]))
        running = np.concatenate([np.zeros((1, 2)), np.cumsum(counts.values, axis=0)])
        return cls(changes // span, changes % span, base, span, active, running)

    def positives(self, days: int | None = None) -> np.ndarray:
        """(N,) positive events of the last days before the pair's day; None: of all days."""
        return self._sum(days)[:, 0]

    def interactions(self, days: int | None = None) -> np.ndarray:
        """(N,) interactions, likewise."""
        return self._sum(days)[:, 1]

    def _sum(self, days: int | None) -> np.ndarray:
        if days is not None and days not in list_activity_windows():
            raise FeatureError(
                f"expected a window of {list_activity_windows()} days, got {days}: add it to windows_days"
            )
        if days not in self._sums:
            first = np.zeros_like(self.day) if days is None else np.maximum(self.day - days, 0)
            ends = (self.item * self._span + day for day in (first, self.day))
            begin, end = (self._running[np.searchsorted(self._active, key)] for key in ends)
            self._sums[days] = end - begin
        return self._sums[days]


def compute_item_rows(counts: ItemDays) -> ItemDays:
    """Rows of the registered item features, float32, from merged day counts."""
    features = find_features("item").values()
    if not len(counts):
        return ItemDays(counts.item, counts.day, np.zeros((0, len(features)), np.float32))
    activity = ItemActivity.of(counts)
    values = np.empty((len(activity.item), len(features)), np.float32)
    for f, found in enumerate(features):
        values[:, f] = found.value(activity)
    return ItemDays(activity.item.astype(np.int32), activity.day + activity.base, values)


@dataclass(frozen=True)
class SnapshotValues:
    """Values in serving: those of the snapshot, at any request time."""

    snapshot: Snapshot

    @property
    def names(self) -> tuple[str, ...]:
        return self.snapshot.value_names

    def gather(self, items: np.ndarray, time: np.ndarray) -> np.ndarray:
        return _blank(self.snapshot.values[np.maximum(items, 0)], items)

    def gather_one(self, items: np.ndarray, column: int) -> np.ndarray:
        """Return one column (B, K) of `gather`."""
        return np.where(items == NONE, np.float32(np.nan), self.snapshot.values[np.maximum(items, 0), column])


@dataclass(frozen=True)
class DailyValues:
    """Values by day in training: the latest row at or before the request's day."""

    keys: np.ndarray  # (N,) int64 item * span + day - base, sorted
    values: np.ndarray  # (N, Fa) float32 of the registered item features
    static: np.ndarray  # (I, Fs) float32, the item columns
    static_names: tuple[str, ...]
    base: int
    span: int

    @classmethod
    def of(cls, rows: ItemDays, static: np.ndarray, static_names: Sequence[str] = ()) -> DailyValues:
        """From activity rows in any order, sparse (the job's) or one for each requested day (Feast's)."""
        names = tuple(static_names)
        if not len(rows):
            return cls(
                np.zeros(0, np.int64), np.zeros((0, len(get_untouched_values())), np.float32), static, names, 0, 1
            )
        base, span = int(rows.day.min()), int(np.ptp(rows.day)) + 1
        keys = rows.item.astype(np.int64) * span + rows.day - base
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], rows.values[order].astype(np.float32), static, names, base, span)

    @property
    def names(self) -> tuple[str, ...]:
        return (*find_features("item"), *self.static_names)

    def gather(self, items: np.ndarray, time: np.ndarray) -> np.ndarray:
        at, untouched = np.maximum(items, 0), get_untouched_values()
        day = np.minimum(time // DAY_US - self.base, self.span - 1)[:, None]
        own = at.astype(np.int64) * self.span
        place = np.searchsorted(self.keys, own + np.maximum(day, -1), side="right") - 1
        found = (place >= 0) & (day >= 0)
        out = np.empty((*items.shape, len(untouched) + self.static.shape[1]), np.float32)
        if len(self.keys):
            found &= self.keys[np.maximum(place, 0)] >= own
            out[:, :, : len(untouched)] = np.where(found[:, :, None], self.values[np.maximum(place, 0)], untouched)
        else:
            out[:, :, : len(untouched)] = untouched
        out[:, :, len(untouched) :] = self.static[at]
        return _blank(out, items)

    def at(self, time: int) -> np.ndarray:
        """(I, Fi) values of every item at one time: what a snapshot holds."""
        return self.gather(np.arange(len(self.static))[None], np.array([time]))[0]


def _blank(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    values[items == NONE] = np.nan
    return values
