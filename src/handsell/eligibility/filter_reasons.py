"""Which filter removes what: for one item of an explanation, and counted over the catalog for the metrics.

Filters are looked at one by one, whatever the others say: an item that two of them remove counts for both.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Ragged, Requests, UserExclusions
from handsell.eligibility.mask import Eligibility, of_creators, with_tags

FILTERS = (
    "unavailable", "not_yet_published", "expired", "excluded", "seen", "shown", "item_cap", "blocked_creator",
    "blocked_tag", "surface_filter", "request_filter", "unknown_history",
)  # fmt: skip
"""In the order in which they are told."""


def verdicts(eligibility: Eligibility, requests: Requests, items: np.ndarray) -> dict[str, np.ndarray]:
    """Filter → (B, K) bool, True where it removes the item (B, K); only filters that remove one of them."""
    shelf, time = eligibility.snapshot, requests.time[:, None]
    at = np.maximum(items, 0)
    exclusions = requests.exclusions or UserExclusions.empty(len(requests))
    found = {
        "unavailable": ~shelf.available[at],
        "not_yet_published": shelf.published[at] > time,
        "expired": shelf.expires[at] <= time,
        "excluded": _among(items, requests.exclude),
        "seen": _among(items, eligibility.repeats(requests)),
        "shown": _among(items, exclusions.shown),
        "item_cap": _among(items, exclusions.capped),
        "blocked_creator": np.stack([of_creators(shelf, exclusions.creator.row(b))[row] for b, row in enumerate(at)]),
        "blocked_tag": np.stack([with_tags(shelf, exclusions.tag.row(b))[row] for b, row in enumerate(at)]),
        "unknown_history": np.broadcast_to(exclusions.unreadable[:, None], items.shape),
    }
    for name, rows, passes in eligibility.filters(requests):
        found[name] = found.get(name, np.zeros(items.shape, bool)) | (rows[:, None] & ~passes[at])
    real = items != NONE
    return {name: found[name] & real for name in FILTERS if name in found and (found[name] & real).any()}


def removed(eligibility: Eligibility, requests: Requests) -> dict[str, int]:
    """Filter → items of the catalog that it keeps from these requests, summed over them; others are left out.

    Costs no pass over the catalog but one for each filter expression and each user who blocks something.
    """
    shelf = eligibility.snapshot
    times = _times(shelf)
    counts = {
        "unavailable": times.unavailable * len(requests),
        "not_yet_published": int((len(shelf) - np.searchsorted(times.published, requests.time, "right")).sum()),
        "expired": int(np.searchsorted(times.expires, requests.time, "right").sum()),
        "excluded": len(requests.exclude.values),
        "seen": len(eligibility.repeats(requests).values),
    }
    if requests.exclusions is not None:
        exclusions = requests.exclusions
        counts |= {"shown": len(exclusions.shown.values), "item_cap": len(exclusions.capped.values)}
        counts["blocked_creator"] = _each(exclusions.creator, lambda row: of_creators(shelf, row))
        counts["blocked_tag"] = _each(exclusions.tag, lambda row: with_tags(shelf, row))
        counts["unknown_history"] = int(exclusions.unreadable.sum()) * len(shelf)
    for name, rows, passes in eligibility.filters(requests):
        counts[name] = counts.get(name, 0) + int(rows.sum()) * (len(shelf) - int(np.count_nonzero(passes)))
    return {name: counts[name] for name in FILTERS if counts.get(name)}


class _Times:
    """What availability counts are read from: sorted once per catalog."""

    def __init__(self, shelf: Snapshot):
        self.unavailable = int(len(shelf) - np.count_nonzero(shelf.available))
        self.published, self.expires = np.sort(shelf.published), np.sort(shelf.expires)


@lru_cache(4)  # of the editions that a gateway holds
def _times(shelf: Snapshot) -> _Times:
    return _Times(shelf)


def _each(rows: Ragged, removed_by) -> int:
    held = np.flatnonzero(rows.lengths)
    return sum(int(np.count_nonzero(removed_by(rows.row(int(b))))) for b in held)


def _among(items: np.ndarray, gone: Ragged) -> np.ndarray:
    return np.stack([np.isin(row, gone.row(b)) for b, row in enumerate(items)])
