"""Weights of the items in a user's history: event weights summed by item and decayed with age."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from handsell.core.batches import NONE, Requests
from handsell.core.kernels import compiled
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import FoldInSource


@dataclass(frozen=True, slots=True)
class HistoryWeights:
    """How events of the history are weighted.

    weight = sign · |event weight| ^ weight_exponent · 2 ^ -(age / half_life_days + later likes / half_life_events)

    Age counts from the newest event. Where `half_life_events` is None, later likes do not count. Weights of dislikes
    are multiplied by `dislikes`.
    """

    half_life_days: float
    half_life_events: float | None = None
    dislikes: float = 1.0
    weight_exponent: float = 1.0

    @classmethod
    def from_config(cls, config: FoldInSource) -> Self:
        return cls(*(getattr(config, field.name) for field in fields(cls)))


def weigh_history(requests: Requests, weights: HistoryWeights, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct items (B, T) int32, padded with -1, and their weights (B, T) float32; dislikes are negative.

    Age counts from the newest event rather than from the request, so that a user who returns after a year keeps their
    history. Events at or after the request's time, and items beyond the model's `n_items`, are ignored.
    """
    history = requests.history
    if compiled is not None and weights.weight_exponent == 1 and history.item.size:
        return _weigh_compiled(requests, weights, n_items)
    valid = (history.item >= 0) & (history.item < n_items) & (history.time < requests.time[:, None])
    valid &= history.weight != 0
    weight = history.weight
    if weights.weight_exponent != 1:
        weight = np.sign(weight) * np.abs(weight) ** weights.weight_exponent
    if weights.dislikes != 1:
        weight = np.where(weight < 0, weights.dislikes, 1) * weight
    factor = compute_decay(history.time, valid, weights.half_life_days)
    if weights.half_life_events is not None:
        factor = factor * np.exp2(-count_later_likes(valid & (history.weight > 0)) / weights.half_life_events)
    weight = np.where(valid, weight * factor, 0).astype(np.float32)
    return _merge_repeats(np.where(valid, history.item, NONE).astype(np.int32), weight)


def _weigh_compiled(requests: Requests, weights: HistoryWeights, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    history = requests.history
    items, summed = np.empty(history.item.shape, np.int32), np.empty(history.item.shape, np.float32)
    compiled.weigh(
        np.ascontiguousarray(history.item, np.int32), np.ascontiguousarray(history.time, np.int64),
        np.ascontiguousarray(history.weight, np.float32), np.ascontiguousarray(requests.time, np.int64),
        items, summed, n_items, weights.half_life_days * DAY_US, weights.half_life_events or 0.0, weights.dislikes,
    )  # fmt: skip
    return items, summed


def count_later_likes(liked: np.ndarray) -> np.ndarray:
    """Return the number of liked events after each event (B, T) int64; `liked` (B, T) bool is ordered oldest first."""
    return liked[:, ::-1].cumsum(axis=1)[:, ::-1] - liked


def compute_decay(time: np.ndarray, valid: np.ndarray, half_life_days: float) -> np.ndarray:
    """Return a factor in (0, 1] per event (B, T): 1 for the newest valid event, halved per half-life of age."""
    newest = np.where(valid, time, np.iinfo(np.int64).min).max(axis=1, keepdims=True, initial=np.iinfo(np.int64).min)
    age = np.where(valid, newest - np.where(valid, time, newest), 0)
    return np.exp2(-age / (half_life_days * DAY_US))


def _merge_repeats(item: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the weights of repeated items in a row at one of their positions; the others become -1 with weight 0."""
    if item.size == 0:
        return item, weight
    order = np.argsort(item, axis=1, kind="stable")
    item, weight = np.take_along_axis(item, order, 1), np.take_along_axis(weight, order, 1)
    first = np.ones(item.shape, bool)
    first[:, 1:] = item[:, 1:] != item[:, :-1]
    total = np.zeros(item.size, np.float32)
    starts = np.flatnonzero(first)
    total[starts] = np.add.reduceat(weight.ravel(), starts)
    return np.where(first, item, NONE).astype(np.int32), total.reshape(item.shape)


def build_history_matrix(item: np.ndarray, weight: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """Build the sparse matrix (B, I) of the items and weights of `weigh_history`."""
    used = item != NONE
    offsets = offsets_from_counts(used.sum(axis=1))
    return sparse.csr_matrix((weight[used], item[used], offsets), shape=(len(item), n_items))
