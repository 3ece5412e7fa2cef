"""Team-draft interleaving: one slate of two rankings, whose clicks tell which is better (@radlinski2008clickthrough).

The rankings draft like two captains. The one with fewer items picks next, and a coin decides between equals; it takes
its best item that is not in the slate yet. A click is credited to the team that picked the item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import NONE
from handsell.core.hashing import GOLDEN, finalize

COIN_STREAM = 1_000  # of the request's random numbers: those below are for exploration


@dataclass(frozen=True, slots=True)
class Draft:
    """B interleaved slates of n positions, padded with -1."""

    item: np.ndarray  # (B, n)
    team: np.ndarray  # (B, n) int8, 0 or 1; -1 where the other ranking had nothing left, so that nobody is credited
    ranking: np.ndarray  # (B, n) int8, 0 or 1: the ranking that the item was taken from
    column: np.ndarray  # (B, n) its place there
    chance: np.ndarray  # (B, n) float64, probability of the item at this position, given those above and the rankings


def draft_teams(first: np.ndarray, second: np.ndarray, n: int, seed: np.ndarray) -> Draft:
    """Interleave rankings first (B, K) and second (B, L) of items, -1 padded, by the requests' seeds (B,) uint64."""
    rows, row = len(seed), np.arange(len(seed))
    rankings = (first, second)
    left = [ranking != NONE for ranking in rankings]
    picked = np.zeros((2, rows), np.int64)
    out = Draft(
        np.full((rows, n), NONE, first.dtype), np.full((rows, n), NONE, np.int8), np.zeros((rows, n), np.int8),
        np.full((rows, n), NONE, np.int64), np.ones((rows, n)),
    )  # fmt: skip
    for position in range(n):
        has = [mask.any(axis=1) for mask in left]
        best = [np.zeros(rows, np.int64) if not mask.shape[1] else mask.argmax(axis=1) for mask in left]
        item = [_take(ranking, row, at, can) for ranking, at, can in zip(rankings, best, has, strict=True)]
        level = picked[0] == picked[1]
        turn = np.where(level, toss(seed, position), picked[0] > picked[1]).astype(np.int8)  # who picks
        contested = has[0] & has[1]
        taker = np.where(contested, turn, np.where(has[0], 0, 1)).astype(np.int8)
        some = has[0] | has[1]
        chosen = np.where(some, np.where(taker == 0, item[0], item[1]), NONE)
        out.item[:, position], out.ranking[:, position] = chosen, np.where(some, taker, 0)
        out.column[:, position] = np.where(some, np.where(taker == 0, best[0], best[1]), NONE)
        out.team[:, position] = np.where(contested, taker, NONE)
        out.chance[:, position] = np.where(contested & level & (item[0] != item[1]), 0.5, 1.0)
        for team in (0, 1):
            picked[team] += contested & (taker == team)
            left[team] &= (rankings[team] != chosen[:, None]) | ~some[:, None]
    return out


def toss(seed: np.ndarray, position: int) -> np.ndarray:
    """(B,) bool, a fair coin for each seed and position."""
    step = np.uint64((int(GOLDEN) * (COIN_STREAM + position)) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        found: np.ndarray = (finalize(finalize(seed) + step) >> np.uint64(63)).astype(bool)
    return found


def _take(ranking: np.ndarray, row: np.ndarray, at: np.ndarray, can: np.ndarray) -> np.ndarray:
    return np.where(can, ranking[row, at], NONE) if ranking.shape[1] else np.full(len(row), NONE, ranking.dtype)
