"""Filters that remove items: of single items for explanations, and counted over the catalog for metrics.

Each filter is evaluated by itself: an item that two of them remove counts for both.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Ragged, Requests, UserExclusions
from handsell.eligibility.mask import Eligibility, select_by_creator, select_by_tag

FILTERS = (
    "unavailable", "not_yet_published", "expired", "excluded", "seen", "shown", "item_cap", "blocked_creator",
    "blocked_tag", "surface_filter", "request_filter", "unknown_history",
)  # fmt: skip
"""In the order in which they are reported."""


def find_removals(eligibility: Eligibility, requests: Requests, items: np.ndarray) -> dict[str, np.ndarray]:
    """Return filter → (B, K) bool, whether it removes the items (B, K); only filters that remove one of them."""
    catalog, time = eligibility.snapshot, requests.time[:, None]
    at = np.maximum(items, 0)
    exclusions = requests.exclusions or UserExclusions.empty(len(requests))
    found = {
        "unavailable": ~catalog.available[at],
        "not_yet_published": catalog.published[at] > time,
        "expired": catalog.expires[at] <= time,
        "excluded": _is_among(items, requests.exclude),
        "seen": _is_among(items, eligibility.find_repeats(requests)),
        "shown": _is_among(items, exclusions.shown),
        "item_cap": _is_among(items, exclusions.capped),
        "blocked_creator": np.stack(
            [select_by_creator(catalog, exclusions.creator.row(b))[row] for b, row in enumerate(at)]
        ),
        "blocked_tag": np.stack([select_by_tag(catalog, exclusions.tag.row(b))[row] for b, row in enumerate(at)]),
        "unknown_history": np.broadcast_to(exclusions.unreadable[:, None], items.shape),
    }
    for name, rows, passes in eligibility.apply_filters(requests):
        found[name] = found.get(name, np.zeros(items.shape, bool)) | (rows[:, None] & ~passes[at])
    real = items != NONE
    return {name: found[name] & real for name in FILTERS if name in found and (found[name] & real).any()}


def count_removed(eligibility: Eligibility, requests: Requests) -> dict[str, int]:
    """Return filter → number of items that it removes, summed over the requests; filters without any are omitted.

    Passes over the catalog once for each filter expression and for each user with blocks.
    """
    catalog = eligibility.snapshot
    times = _sorted_times(catalog)
    counts = {
        "unavailable": times.unavailable * len(requests),
        "not_yet_published": times.count_unpublished(requests.time),
        "expired": times.count_expired(requests.time),
        "excluded": len(requests.exclude.values),
        "seen": len(eligibility.find_repeats(requests).values),
    }
    if requests.exclusions is not None:
        exclusions = requests.exclusions
        counts |= {"shown": len(exclusions.shown.values), "item_cap": len(exclusions.capped.values)}
        counts["blocked_creator"] = _count_each(exclusions.creator, lambda row: select_by_creator(catalog, row))
        counts["blocked_tag"] = _count_each(exclusions.tag, lambda row: select_by_tag(catalog, row))
        counts["unknown_history"] = int(exclusions.unreadable.sum()) * len(catalog)
    for name, rows, passes in eligibility.apply_filters(requests):
        counts[name] = counts.get(name, 0) + int(rows.sum()) * (len(catalog) - int(np.count_nonzero(passes)))
    return {name: counts[name] for name in FILTERS if counts.get(name)}


class _SortedTimes:
    """Publication and expiry times of a catalog, sorted for counting; of live changes only the changed items."""

    def __init__(self, catalog: Snapshot):
        self.unavailable = int(len(catalog) - np.count_nonzero(catalog.available))
        self._parts: list[tuple[int, np.ndarray, np.ndarray]] = []  # sign, and the times of items that count with it
        if isinstance(catalog, LiveSnapshot):
            base, changed = catalog.base, catalog.changed
            self._parts += _sorted_times(base)._parts
            old = changed[changed < len(base)]
            self._add(-1, base.published[old], base.expires[old])
            self._add(1, catalog.published[changed], catalog.expires[changed])
        else:
            self._add(1, catalog.published, catalog.expires)

    def _add(self, sign: int, published: np.ndarray, expires: np.ndarray) -> None:
        self._parts.append((sign, np.sort(published), np.sort(expires)))

    def count_unpublished(self, time: np.ndarray) -> int:
        """Count the items that are published after times (B,), summed over them."""
        return sum(s * int((len(p) - np.searchsorted(p, time, "right")).sum()) for s, p, _ in self._parts)

    def count_expired(self, time: np.ndarray) -> int:
        """Count the items that have expired at times (B,), summed over them."""
        return sum(s * int(np.searchsorted(e, time, "right").sum()) for s, _, e in self._parts)


@lru_cache(8)  # bundles that a gateway holds, and versions of their live changes
def _sorted_times(catalog: Snapshot) -> _SortedTimes:
    return _SortedTimes(catalog)


def _count_each(rows: Ragged, select) -> int:
    held = np.flatnonzero(rows.lengths)
    return sum(int(np.count_nonzero(select(rows.row(int(b))))) for b in held)


def _is_among(items: np.ndarray, removed: Ragged) -> np.ndarray:
    return np.stack([np.isin(row, removed.row(b)) for b, row in enumerate(items)])
