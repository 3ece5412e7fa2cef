"""What fills a slate whose filter is so narrow that the sources know too little of what passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handsell.core.batches import NONE, Candidates

LEAST = 50  # candidates of a filtered request, where so many items pass


def with_reserve(found: Candidates, eligible: np.ndarray, rows: np.ndarray, least: int = LEAST) -> Candidates:
    """Of `rows` (B,) bool, those with fewer than `least` candidates get more: eligible (B, I) items that no source
    returned, the newest of the catalog first, behind the others and with a fused score of 0.
    """
    held = (found.item != NONE).sum(axis=1)
    short = np.flatnonzero(rows & (held < least))
    more = {b: _newest_others(found.item[b], eligible[b], least - held[b]) for b in short.tolist()}
    wider = max((held[b] + len(items) for b, items in more.items()), default=0) - found.item.shape[1]
    if wider > 0:
        found = _widened(found, wider)
    for b, items in more.items():
        found.item[b, held[b] : held[b] + len(items)] = items
    return found


def _newest_others(items: np.ndarray, eligible: np.ndarray, count: int) -> np.ndarray:
    left = np.flatnonzero(eligible)
    return left[~np.isin(left, items)][::-1][:count]


def _widened(found: Candidates, by: int) -> Candidates:
    """With more columns, of padding."""

    def wide(array: np.ndarray, fill: float) -> np.ndarray:
        return np.concatenate([array, np.full((len(array), by, *array.shape[2:]), fill, array.dtype)], axis=1)

    return replace(
        found, item=wide(found.item, NONE), fused=wide(found.fused, 0), score=wide(found.score, 0),
        source_score=wide(found.source_score, np.nan), source_rank=wide(found.source_rank, np.nan),
    )  # fmt: skip
