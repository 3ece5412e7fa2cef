"""Weighted reciprocal rank fusion of the sources' results into one list of distinct candidates [cormack2009]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from handsell.config import Config
from handsell.core.batches import NONE, Candidates
from handsell.core.kernels import compiled
from handsell.retrieval.config import MAX_SOURCES

K0 = 60  # added to ranks; reduces the advantage of the first ranks


def max_fused_score(weights: Sequence[float]) -> float:
    """Return the fused score of an item that every source ranks first."""
    return sum(weights) / (K0 + 1)


def fuse_sources(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    names: tuple[str, ...],
    weights: Sequence[float],
    k: int,
    degraded: tuple[str, ...] = (),
) -> Candidates:
    """Merge the (items, scores) (B, k_s) of S sources into at most k candidates per request, best first.

    fused = Σ_s weight_s / (K0 + 1 + rank_s); ties are ordered by item number. The result has as many columns as the
    longest row needs, at least 1. Raises ValueError for more than MAX_SOURCES sources.
    """
    if len(names) > MAX_SOURCES:
        raise ValueError(f"expected at most {MAX_SOURCES} sources, got {len(names)}: disable some")
    rows = len(found[0][0])
    if compiled is not None and rows:
        return _fuse_compiled(found, names, weights, k, degraded)
    row, item, source, rank, score = _flatten(found)
    # One entry per (row, item), ascending; `entry` maps each result to its entry.
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
    out = _allocate(rows, size, names, degraded)
    at = (entry_row[kept], column[kept])
    out.item[at] = (keys % width)[kept]
    out.fused[at] = fused[kept]
    out.score[:] = out.fused
    held = kept[entry]
    at3 = (row[held], column[entry[held]], source[held])
    out.source_score[at3] = score[held]
    out.source_rank[at3] = rank[held]
    return out


def _fuse_compiled(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    names: tuple[str, ...],
    weights: Sequence[float],
    k: int,
    degraded: tuple[str, ...],
) -> Candidates:
    """Return what `fuse_sources` does."""
    lists = [
        (np.ascontiguousarray(items, np.int32), np.ascontiguousarray(scores, np.float32))
        for (items, scores), _ in zip(found, names, strict=False)
    ]
    rows, width = len(found[0][0]), max(1, min(k, sum(items.shape[1] for items, _ in lists)))
    item, fused = np.empty((rows, width), np.int32), np.empty((rows, width), np.float32)
    count = np.empty(rows, np.int64)
    compiled.rank_fused(lists, np.asarray(weights, np.float64), item, fused, count)
    size = max(1, min(width, int(count.max())))
    item, fused = np.ascontiguousarray(item[:, :size]), np.ascontiguousarray(fused[:, :size])
    score, rank = (np.empty((rows, size, len(lists)), np.float32) for _ in range(2))
    compiled.place_sources(lists, item, score, rank, rows)
    return Candidates(item, fused, score, rank, fused.copy(), names, degraded)


def _flatten(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Return row, item, source, rank (int64) and score of every result, in the order of the sources."""
    parts = []
    for source, (items, scores) in enumerate(found):
        at = np.nonzero(items != NONE)
        parts.append((at[0], items[at], np.full(len(at[0]), source), at[1], scores[at]))
    row, item, sources, rank, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return row, item.astype(np.int64), sources, rank, score


def _allocate(rows: int, k: int, names: tuple[str, ...], degraded: tuple[str, ...]) -> Candidates:
    return Candidates(
        item=np.full((rows, k), NONE, np.int32),
        fused=np.zeros((rows, k), np.float32),
        source_score=np.full((rows, k, len(names)), np.nan, np.float32),
        source_rank=np.full((rows, k, len(names)), np.nan, np.float32),
        score=np.zeros((rows, k), np.float32),
        sources=names,
        degraded=degraded,
    )


@dataclass(frozen=True, slots=True)
class CarriedItems:
    """New items that fusion passes on besides the best candidates, so that exploration may give them a fair start.

    At most `count` items of each request, published within `days`. Few sources find a new item, at low ranks: where
    the sources find more than the funnel takes, fusion drops it first.
    """

    count: int = 0
    days: float = 0.0

    @classmethod
    def of(cls, config: Config) -> CarriedItems:
        exploration = config.reranking.exploration
        return cls(exploration.carried, exploration.new_items.days)


def carry_new_items(found: Candidates, k: int, new: np.ndarray, most: int) -> Candidates:
    """Return the first k candidates and, after them, at most `most` of the others that are new, (B, K) bool."""
    beyond = new & (np.arange(new.shape[1]) >= k)
    most = min(most, int(beyond.sum(axis=1).max(initial=0)))
    extra = np.argsort(~beyond, axis=1, kind="stable")[:, :most]
    rows = len(new)
    first = np.broadcast_to(np.arange(k), (rows, k))
    kept = found.reorder(np.concatenate([first, extra], axis=1))
    gone = np.concatenate([np.zeros((rows, k), bool), ~np.take_along_axis(beyond, extra, 1)], axis=1)
    return replace(
        kept,
        item=np.where(gone, NONE, kept.item).astype(kept.item.dtype),
        fused=np.where(gone, 0, kept.fused).astype(kept.fused.dtype),
        score=np.where(gone, 0, kept.score).astype(kept.score.dtype),
        source_score=np.where(gone[:, :, None], np.nan, kept.source_score),
        source_rank=np.where(gone[:, :, None], np.nan, kept.source_rank),
    )
