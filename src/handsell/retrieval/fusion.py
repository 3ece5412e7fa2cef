"""The union of what the sources found, fused by reciprocal rank; no candidate is lost, none comes twice.

Source: [cormack2009], with a weight per source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from handsell.core.batches import NONE, Candidates

K0 = 60  # damps the advantage of a source's very first
MOST_SOURCES = 8


def largest_fused(weights: Sequence[float]) -> float:
    """The fused score of an item that every source puts first."""
    return sum(weights) / (K0 + 1)


def union(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    names: tuple[str, ...],
    weights: Sequence[float],
    k: int,
    degraded: tuple[str, ...] = (),
) -> Candidates:
    """Merge (items, scores) (B, k_s) of S sources into at most k candidates a row, best fused first.

    fused = Σ_s weight_s / (K0 + 1 + rank_s), equal sums by the lower item number. A row is as wide as
    the fullest one needs (at least 1). Raises ValueError for more than 8 sources.
    """
    if len(names) > MOST_SOURCES:
        raise ValueError(f"at most {MOST_SOURCES} sources are expected, got {len(names)}: switch some off")
    rows = len(found[0][0])
    row, item, source, rank, score = _flat(found)
    # one entry per (row, item), ascending; `entry` maps each find to its entry
    width = int(item.max(initial=0)) + 1
    keys, entry = np.unique(row * width + item, return_inverse=True)
    gain = np.asarray(weights, np.float64)[source] / (K0 + 1 + rank)
    fused = np.bincount(entry, gain, minlength=len(keys))
    entry_row = keys // width
    order = np.lexsort((keys, -fused, entry_row))
    starts = np.searchsorted(entry_row, np.arange(rows))
    column = np.empty(len(keys), np.int64)
    column[order] = np.arange(len(keys)) - starts[entry_row]  # entry_row is sorted, so order keeps rows together
    size = max(1, min(k, int(column.max(initial=-1)) + 1))
    kept = column < size
    out = _empty(rows, size, names, degraded)
    at = (entry_row[kept], column[kept])
    out.item[at] = (keys % width)[kept]
    out.fused[at] = fused[kept]
    out.score[:] = out.fused
    held = kept[entry]
    at3 = (row[held], column[entry[held]], source[held])
    out.source_score[at3] = score[held]
    out.source_rank[at3] = rank[held]
    return out


def _flat(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Row, item, source, rank (int64) and score of every find, in the order of the sources."""
    parts = []
    for source, (items, scores) in enumerate(found):
        at = np.nonzero(items != NONE)
        parts.append((at[0], items[at], np.full(len(at[0]), source), at[1], scores[at]))
    row, item, sources, rank, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return row, item.astype(np.int64), sources, rank, score


def _empty(rows: int, k: int, names: tuple[str, ...], degraded: tuple[str, ...]) -> Candidates:
    return Candidates(
        item=np.full((rows, k), NONE, np.int32),
        fused=np.zeros((rows, k), np.float32),
        source_score=np.full((rows, k, len(names)), np.nan, np.float32),
        source_rank=np.full((rows, k, len(names)), np.nan, np.float32),
        score=np.zeros((rows, k), np.float32),
        sources=names,
        degraded=degraded,
    )
