"""Backfill of filtered requests: the newest eligible items where the sources return too few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handsell.core.batches import NONE, Candidates

MIN_CANDIDATES = 50  # of a filtered request, as far as enough items are eligible


def backfill(found: Candidates, eligible: np.ndarray, rows: np.ndarray, least: int = MIN_CANDIDATES) -> Candidates:
    """Append eligible items to the `rows` (B,) bool that have fewer than `least` candidates.

    The newest items of the catalog come first, with a fused score of 0. `eligible` is (B, I) bool. Changes `found` in
    place where its columns suffice.
    """
    held = (found.item != NONE).sum(axis=1)
    short = np.flatnonzero(rows & (held < least))
    more = {b: _find_newest_others(found.item[b], eligible[b], least - held[b]) for b in short.tolist()}
    wider = max((held[b] + len(items) for b, items in more.items()), default=0) - found.item.shape[1]
    if wider > 0:
        found = _widen(found, wider)
    for b, items in more.items():
        found.item[b, held[b] : held[b] + len(items)] = items
    return found


def _find_newest_others(items: np.ndarray, eligible: np.ndarray, count: int) -> np.ndarray:
    left = np.flatnonzero(eligible)
    return left[~np.isin(left, items)][::-1][:count]


def _widen(found: Candidates, by: int) -> Candidates:
    """Return the candidates with `by` more columns of padding."""

    def wide(array: np.ndarray, fill: float) -> np.ndarray:
        return np.concatenate([array, np.full((len(array), by, *array.shape[2:]), fill, array.dtype)], axis=1)

    return replace(
        found, item=wide(found.item, NONE), fused=wide(found.fused, 0), score=wide(found.score, 0),
        source_score=wide(found.source_score, np.nan), source_rank=wide(found.source_rank, np.nan),
    )  # fmt: skip
