"""Exploration: some positions show a candidate drawn by chance, and its probability is logged.

At each of the configured positions, given the positions above,

    P(item) = (1 − floor) · ((1 − share) · [greedy choice] + share · q(item | open)) + floor · q(item | open and new)

Open candidates are allowed, not chosen yet, and strain the constraints no more than necessary (the greedy choice is one
of them). `q` is uniform or the probability of being the best one (thompson.py), `floor` the chance that new items get
in this request (new_items.py), 0 where none is open. This is the propensity of the position (1 at positions that never
explore); the probability of a slate is the product over its positions. The item is drawn from these very numbers, so
that they are exact. A draw depends only on the request's seed and the position, not on the batch. Off-policy estimates
need propensities of this form (@bottou2013counterfactual).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from handsell.core.batches import Requests
from handsell.core.hashing import GOLDEN, finalize


class Choice(Protocol):
    """How a candidate is drawn among the open ones."""

    def compute_chances(self, open_: np.ndarray) -> np.ndarray:
        """Return (B, K) float64: rows add up to 1, or to 0 where no candidate of open_ (B, K) bool is."""
        ...


class UniformChoice:
    def compute_chances(self, open_: np.ndarray) -> np.ndarray:
        return open_ / np.maximum(open_.sum(axis=1, keepdims=True), 1)


UNIFORM = UniformChoice()


@dataclass(frozen=True, slots=True)
class NewItemFloor:
    """The chance of new items at each exploring position of B requests."""

    chance: np.ndarray  # (B,) float64
    new: np.ndarray  # (B, K) bool


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
    choice: Choice = UNIFORM
    floor: NewItemFloor | None = None

    def explores(self, position: int) -> bool:
        return position in self.positions

    def draw(
        self, position: int, greedy: np.ndarray, can: np.ndarray, strain: np.ndarray | None, most: np.ndarray | float
    ) -> Draw:
        """Draw for a position; greedy (B,) column, can (B, K) bool may be shown, strain (B, K), None: zero.

        `most` (B,) is the strain of the greedy choice: the least of all candidates that it could have been.
        """
        row = np.arange(len(greedy))
        chance = self.compute_chances(greedy, can, strain, most)
        sums = chance.cumsum(axis=1)
        pick = (sums > (draw_uniform(self.seed, position) * sums[:, -1])[:, None]).argmax(axis=1)
        return Draw(pick, chance[row, pick] / sums[:, -1], pick != greedy)

    def compute_chances(
        self, greedy: np.ndarray, can: np.ndarray, strain: np.ndarray | None, most: np.ndarray | float
    ) -> np.ndarray:
        """Return (B, K) float64, the chance of each candidate; arguments as of `draw`. Rows add up to about 1."""
        open_ = can if strain is None else can & (strain <= np.reshape(most, (-1, 1)))
        chance = np.zeros(can.shape)
        chance[np.arange(len(greedy)), greedy] = 1.0
        if self.share:
            drawn = open_.any(axis=1, keepdims=True) * self.share
            chance = (1 - drawn) * chance + drawn * self.choice.compute_chances(open_)
        if self.floor is not None:
            new = open_ & self.floor.new
            drawn = np.where(new.any(axis=1), self.floor.chance, 0.0)[:, None]
            chance = (1 - drawn) * chance + drawn * self.choice.compute_chances(new)
        return chance


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
