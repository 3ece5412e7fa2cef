"""Exploration: now and then a position shows a candidate drawn at random, and its chance is logged.

With probability `share`, each of the configured positions takes one drawn uniformly from the open candidates: allowed,
not chosen yet, and breaking no constraint more than must be (the usual pick is one of them). Given what stands above,

    P(item) = (1 − share) · [the usual pick] + share · [open] / number open

which is what `propensity` says of every position (1 at positions that never explore); the chance of a whole slate is
the product over its positions. Draws depend on the request's seed and the position alone: the same request gives the
same slate, in whatever batch. Propensities of this form are what off-policy estimates need (@bottou2013counterfactual).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import Requests
from handsell.core.hashing import GOLDEN, finalize


@dataclass(frozen=True, slots=True)
class Turn:
    """One position of B slates."""

    pick: np.ndarray  # (B,) int, column
    propensity: np.ndarray  # (B,) float64
    explored: np.ndarray  # (B,) bool, another one than the usual pick was drawn


@dataclass(frozen=True, slots=True)
class Exploration:
    share: float
    positions: frozenset[int]  # from 0
    seed: np.ndarray  # (B,) uint64

    def at(self, position: int) -> bool:
        return position in self.positions

    def turn(self, position: int, usual: np.ndarray, worth: np.ndarray, strain: np.ndarray | None) -> Turn:
        """worth (B, K), -inf for what cannot be chosen; strain (B, K), or None where there is none at all."""
        row = np.arange(len(usual))
        can = np.isfinite(worth)
        strained = np.where(can, 0.0 if strain is None else strain, np.inf)
        open_ = can & (strained == strained.min(axis=1, keepdims=True))
        many = open_.sum(axis=1)
        which = np.minimum(uniform(self.seed, 2 * position) * many, np.maximum(many - 1, 0)).astype(np.int64)
        drawn = (open_.cumsum(axis=1) > which[:, None]).argmax(axis=1)
        takes = (uniform(self.seed, 2 * position + 1) < self.share) & (many > 0)
        pick = np.where(takes, drawn, usual)
        chance = self.share * open_[row, pick] / np.maximum(many, 1) + (1 - self.share) * (pick == usual)
        return Turn(pick, np.where(many > 0, chance, 1.0), takes & (drawn != usual))


def seeds(requests: Requests) -> np.ndarray:
    """(B,) uint64: the requests' own, else made from user, time and surface."""
    if requests.seed is not None:
        return requests.seed.astype(np.uint64)
    made: np.ndarray = requests.time.astype(np.uint64)
    for part in (requests.user, requests.surface):
        made = finalize(made) ^ part.astype(np.int64).astype(np.uint64)
    return made


def uniform(seed: np.ndarray, stream: int) -> np.ndarray:
    """(B,) float64 in [0, 1), independent between seeds (B,) uint64 and streams."""
    step = np.uint64((int(GOLDEN) * (stream + 1)) & 0xFFFFFFFFFFFFFFFF)
    return (finalize(finalize(seed) + step) >> np.uint64(11)) * 2.0**-53
