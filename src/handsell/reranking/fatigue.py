"""Fatigue: items that were shown to the user and ignored move down."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import Requests


def count_ignored_impressions(requests: Requests, items: np.ndarray) -> np.ndarray | None:
    """Return (B, K) how often items (B, K) were shown lately without an action since; None if this was not read."""
    exclusions = requests.exclusions
    if exclusions is None or exclusions.ignored is None or exclusions.ignored_times is None:
        return None
    times = np.zeros(items.shape)
    for b in np.flatnonzero(exclusions.ignored.lengths).tolist():
        ignored, often = exclusions.ignored.row(b), exclusions.ignored_times.row(b)  # ascending by item
        at = np.minimum(np.searchsorted(ignored, items[b]), len(ignored) - 1)
        times[b] = np.where(ignored[at] == items[b], often[at], 0)
    return times


def compute_cost(times: np.ndarray, weight: float) -> np.ndarray:
    """Return the cost of items that were ignored (B, K) times: weight · log2(1 + times)."""
    return weight * np.log2(1 + times)
