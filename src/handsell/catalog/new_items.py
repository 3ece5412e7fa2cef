"""New items: published lately, or, where the time of publication is unknown, without a positive event."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import ALWAYS, Snapshot
from handsell.core.batches import NONE
from handsell.core.units import DAY_US

POSITIVES, EVENTS = "item_positives_total", ("item_events_28d", "item_positives_total")


def is_new(snapshot: Snapshot, items: np.ndarray, time: np.ndarray, days: float) -> np.ndarray:
    """Return (B, K) bool, whether items (B, K) are new at time (B,) µs; False for -1."""
    at = np.maximum(items, 0)
    published, now = snapshot.published[at], np.asarray(time)[:, None]
    dated = published != ALWAYS
    fresh = dated & (published <= now) & (published >= now - int(days * DAY_US))
    if POSITIVES in snapshot.value_names:
        positives = snapshot.values[:, snapshot.value_names.index(POSITIVES)][at]
        fresh |= ~dated & ~(positives > 0)
    return fresh & (items != NONE)


def count_events(snapshot: Snapshot, items: np.ndarray) -> np.ndarray:
    """Return (B, K) float64, the events of items (B, K) in the snapshot: of 28 days, or positive ones at all times."""
    at = np.maximum(items, 0)
    counts = np.zeros(items.shape)
    for name in EVENTS:
        if name in snapshot.value_names:
            values = snapshot.values[:, snapshot.value_names.index(name)][at]
            counts = np.maximum(counts, np.nan_to_num(values.astype(np.float64)))
    return counts
