"""Exploration: some positions show a candidate drawn at random, and its probability is logged.

With probability `share`, each of the configured positions takes a candidate drawn uniformly from the open ones: those
allowed, not chosen yet, and with the least strain of constraints (the greedy choice is one of them). Given the
positions above,

    P(item) = (1 − share) · [greedy choice] + share · [open] / number open

which is the propensity of the position (1 at positions that never explore); the probability of a slate is the product
over its positions. A draw depends only on the request's seed and the position, not on the batch. Off-policy estimates
need propensities of this form (@bottou2013counterfactual).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import Requests
from handsell.core.hashing import GOLDEN, finalize


@dataclass(frozen=True, slots=True)
class Draw:
    """One position of B slates."""

    pick: np.ndarray  # (B,) int, column
    propensity: np.ndarray  # (B,) float64
    explored: np.ndarray  # (B,) bool, drawn and different from the greedy choice


@dataclass(frozen=True, slots=True)
class Exploration:
    share: float
    positions: frozenset[int]  # from 0
    seed: np.ndarray  # (B,) uint64

    def explores(self, position: int) -> bool:
        return position in self.positions

    def draw(self, position: int, greedy: np.ndarray, utility: np.ndarray, strain: np.ndarray | None) -> Draw:
        """Draw for a position; greedy (B,) column, utility (B, K) -inf where not allowed, strain (B, K), None: zero."""
        row = np.arange(len(greedy))
        can = np.isfinite(utility)
        strained = np.where(can, 0.0 if strain is None else strain, np.inf)
        open_ = can & (strained == strained.min(axis=1, keepdims=True))
        many = open_.sum(axis=1)
        which = np.minimum(draw_uniform(self.seed, 2 * position) * many, np.maximum(many - 1, 0)).astype(np.int64)
        drawn = (open_.cumsum(axis=1) > which[:, None]).argmax(axis=1)
        takes = (draw_uniform(self.seed, 2 * position + 1) < self.share) & (many > 0)
        pick = np.where(takes, drawn, greedy)
        chance = self.share * open_[row, pick] / np.maximum(many, 1) + (1 - self.share) * (pick == greedy)
        return Draw(pick, np.where(many > 0, chance, 1.0), takes & (drawn != greedy))


def derive_seeds(requests: Requests) -> np.ndarray:
    """Return (B,) uint64, the seeds of the requests, by default derived from user, time and surface."""
    if requests.seed is not None:
        return requests.seed.astype(np.uint64)
    made: np.ndarray = requests.time.astype(np.uint64)
    for part in (requests.user, requests.surface):
        made = finalize(made) ^ part.astype(np.int64).astype(np.uint64)
    return made


def draw_uniform(seed: np.ndarray, stream: int) -> np.ndarray:
    """Return (B,) float64 in [0, 1), independent between seeds (B,) uint64 and streams."""
    step = np.uint64((int(GOLDEN) * (stream + 1)) & 0xFFFFFFFFFFFFFFFF)
    return (finalize(finalize(seed) + step) >> np.uint64(11)) * 2.0**-53
