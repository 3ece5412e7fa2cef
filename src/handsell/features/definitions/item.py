"""Item features: activity of all users in windows of days that end with yesterday."""

from __future__ import annotations

import numpy as np

from handsell.features.item import ItemActivity
from handsell.features.registry import feature


@feature("item_positives_1d", group="item", default=0.0, windows_days=(1,))
def positives_1d(activity: ItemActivity) -> np.ndarray:
    """Positive events yesterday."""
    return activity.positives(1)


@feature("item_positives_7d", group="item", default=0.0, windows_days=(7,))
def positives_7d(activity: ItemActivity) -> np.ndarray:
    """Positive events of the last 7 days."""
    return activity.positives(7)


@feature("item_positives_28d", group="item", default=0.0, windows_days=(28,))
def positives_28d(activity: ItemActivity) -> np.ndarray:
    """Positive events of the last 28 days."""
    return activity.positives(28)


@feature("item_events_28d", group="item", default=0.0, windows_days=(28,))
def events_28d(activity: ItemActivity) -> np.ndarray:
    """Interactions of the last 28 days."""
    return activity.interactions(28)


@feature("item_positive_rate_28d", group="item", windows_days=(28,))
def positive_rate_28d(activity: ItemActivity) -> np.ndarray:
    """Positive events per interaction of the last 28 days."""
    positives, events = activity.positives(28), activity.interactions(28)
    return np.divide(positives, events, out=np.full(len(events), np.nan), where=events > 0)


@feature("item_trend", group="item", default=0.0, windows_days=(7, 28))
def trend(activity: ItemActivity) -> np.ndarray:
    """Log ratio of the positive events of 7 days to those of an average week of 28 days."""
    return np.log((activity.positives(7) + 1) / (activity.positives(28) / 4 + 1))


@feature("item_positives_total", group="item", default=0.0)
def positives_total(activity: ItemActivity) -> np.ndarray:
    """All positive events."""
    return activity.positives()
