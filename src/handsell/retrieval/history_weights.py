"""A user's history as votes: one per distinct item, event weights summed and decayed with age."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from scipy import sparse

from handsell.core.batches import NONE, Requests
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.retrieval.config import FoldInSource


@dataclass(frozen=True, slots=True)
class HistoryWeights:
    """How much an event of the history says about what comes next.

    An event counts half for every `half_life_days` that it is older than the newest one and for every
    `half_life_events` likes that came after it (None: their number does not matter); a dislike counts by `dislikes`.
    Its weight enters by the power `weight_exponent`: 1 as it is, 0 all likes alike.
    """

    half_life_days: float
    half_life_events: float | None = None
    dislikes: float = 1.0
    weight_exponent: float = 1.0

    @classmethod
    def of(cls, config: FoldInSource) -> Self:
        return cls(*(getattr(config, field.name) for field in fields(cls)))


def votes(requests: Requests, weights: HistoryWeights, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Items (B, T) int32, -1 padded, and weights (B, T) float32, negative where dislike prevails.

    Age counts from the newest event of the history, so that a user who comes back after a year is not
    forgotten. Events at or after the request's time and items beyond the model's n_items have no vote.
    """
    history = requests.history
    valid = (history.item >= 0) & (history.item < n_items) & (history.time < requests.time[:, None])
    valid &= history.weight != 0
    given = history.weight
    if weights.weight_exponent != 1:
        given = np.sign(given) * np.abs(given) ** weights.weight_exponent
    if weights.dislikes != 1:
        given = np.where(given < 0, weights.dislikes, 1) * given
    factor = decay(history.time, valid, weights.half_life_days)
    if weights.half_life_events is not None:
        factor = factor * np.exp2(-later_likes(valid & (history.weight > 0)) / weights.half_life_events)
    weight = np.where(valid, given * factor, 0).astype(np.float32)
    return _merged(np.where(valid, history.item, NONE).astype(np.int32), weight)


def later_likes(liked: np.ndarray) -> np.ndarray:
    """(B, T) int64 number of liked events after each event; `liked` (B, T) bool, oldest first."""
    return liked[:, ::-1].cumsum(axis=1)[:, ::-1] - liked


def decay(time: np.ndarray, valid: np.ndarray, half_life_days: float) -> np.ndarray:
    """(B, T) factor in (0, 1]: 1 for the newest valid event, half of it every half_life_days before."""
    newest = np.where(valid, time, np.iinfo(np.int64).min).max(axis=1, keepdims=True, initial=np.iinfo(np.int64).min)
    age = np.where(valid, newest - np.where(valid, time, newest), 0)
    return np.exp2(-age / (half_life_days * DAY_US))


def _merged(item: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Repeated items of a row become one, with the sum of their weights; the others turn to -1 and 0."""
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


def vote_matrix(item: np.ndarray, weight: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """(B, I) the votes as a sparse matrix."""
    used = item != NONE
    offsets = offsets_from_counts(used.sum(axis=1))
    return sparse.csr_matrix((weight[used], item[used], offsets), shape=(len(item), n_items))
