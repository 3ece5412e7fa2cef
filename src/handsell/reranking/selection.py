"""Greedy selection of a slate: each position takes the candidate of greatest value, given the positions above it.

    value = utility + boost − cost of preferences − NOT_FINITE_PENALTY (no finite score) − penalty of broken constraints

Constraints are relaxed in their order. None is relaxed while a remaining candidate satisfies it, and as few as possible
are broken. Broken constraints are reported for every position. A floor passes over candidates whose score is far below
the best one left (docs/decisions/064).

The loop runs over positions, not over requests. Without rules, a shorter slate is the beginning of a longer one. A
request's slate does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from handsell.core.batches import NONE
from handsell.reranking.compiled_selection import can_select, select_columns
from handsell.reranking.exploration import Draw, Exploration

MAX_BOOST = 40.0  # limit of boosts in either direction, so that none exceeds NOT_FINITE_PENALTY or a constraint
NOT_FINITE_PENALTY = 100.0  # of a score that is not finite: above any utility, below breaking a constraint
CONSTRAINT_PENALTY = 1e3  # of breaking the first constraint once; each later one weighs MAX_BREAKS times as much
MAX_PENALTY = 1e10  # limit of that weight: constraints after the fifth are not ordered among themselves
MAX_BREAKS = 64.0  # limit of the breaks of one constraint by one candidate
RESERVED = 1e12  # penalty of a candidate that is pinned to a later position: taken only if nothing else is left


@dataclass(frozen=True, slots=True)
class ScoreFloor:
    """Least score of a position: `share` of the best score that is left among the candidates of least penalty.

    There is none where the best score is not positive, as a ranker of another package may return it: no share of it
    means anything.
    """

    share: float  # in 0..1
    score: np.ndarray  # (B, K) float64, compared with the floor; inf for candidates that may be below it
    leading: np.ndarray  # (B, K) float64, the scores of which the best sets the floor; 0 for those that do not count

    @classmethod
    def of(cls, share: float, score: np.ndarray, boost: np.ndarray | None, ignored: np.ndarray | None) -> ScoreFloor:
        """Return the floor for scores (B, K): a rule may raise items from below it with a boost (B, K).

        Buried items, those that the user has ignored (B, K) times and scores that are not finite do not set the floor.
        """
        score = np.where(np.isfinite(score), score, 0).astype(np.float64)
        leading = score
        if ignored is not None:
            leading = np.where(ignored > 0, 0, leading)
        if boost is not None:
            score, leading = np.where(boost > 0, np.inf, score), np.where(boost != 0, 0, leading)
        return cls(share, score, leading)

    def find_low(self, value: np.ndarray, penalty: np.ndarray | None) -> np.ndarray:
        """Return (B, K) bool: candidates to pass over, given the values (B, K), -inf for those that are gone."""
        compared = value != -np.inf
        if penalty is not None:
            compared &= penalty == np.where(compared, penalty, np.inf).min(axis=1, keepdims=True)
        best = np.where(compared, self.leading, 0).max(axis=1, keepdims=True, initial=0)
        return compared & (best > 0) & (self.score < self.share * best)


@dataclass(frozen=True, slots=True)
class Pool:
    """B requests' K candidates, best first: of equal values the earlier is taken."""

    utility: np.ndarray  # (B, K) float64, independent of the rest of the slate; about 0..1
    allowed: np.ndarray  # (B, K) bool, the others are never chosen
    finite: np.ndarray  # (B, K) bool, whether the score is finite
    boost: np.ndarray | None = None  # (B, K) float, added to the utility; 1 = the whole span of relevance in a request
    pin: np.ndarray | None = None  # (B, n') int, column of the candidate that this position takes, -1: none
    drawn_only: np.ndarray | None = None  # (B, K) bool, shown only if exploration draws or a rule pins them
    floor: ScoreFloor | None = None


class Preference(Protocol):
    """A soft criterion: a cost of each candidate that depends on the positions above."""

    @property
    def cost(self) -> np.ndarray | None:
        """(B, K) cost of each candidate at the next position; None: zero."""
        ...

    def add(self, position: int, place: np.ndarray) -> None:
        """Candidates b·K + k, flat places (B,), were chosen for this position."""
        ...


class Constraint(Protocol):
    """A hard criterion, relaxed only if no candidate satisfies it."""

    name: str

    @property
    def breaks(self) -> np.ndarray | None:
        """(B, K) number of times that each candidate would break it at the next position; None: zero."""
        ...

    def add(self, position: int, place: np.ndarray) -> None: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen columns in slate order."""

    column: np.ndarray  # (B, n) int64, -1 where no allowed one is left
    broken: np.ndarray  # (B, n) uint32, bit c set where constraint c is broken at this position
    propensity: np.ndarray  # (B, n) float32, probability of this item at this position, given those above it
    explored: np.ndarray  # (B, n) bool, drawn at random and different from the greedy choice


def select(
    pool: Pool,
    n: int,
    preferences: Sequence[Preference] = (),
    constraints: Sequence[Constraint] = (),
    exploration: Exploration | None = None,
) -> Selection:
    """Select slates of n positions, with fewer items where fewer are allowed."""
    rows, width = pool.utility.shape
    row, first = np.arange(rows), np.arange(rows) * width  # flat place of each row's first candidate
    utility, base = _utility(pool), _base_penalty(pool)
    if exploration is None and pool.pin is None and pool.drawn_only is None and can_select(preferences, constraints):
        criteria = preferences, constraints, CONSTRAINT_PENALTY, MAX_BREAKS - 1
        column, often = select_columns(utility, base, n, *criteria, pool.floor)
        return replace(_empty_selection(rows, n), column=column, broken=often.astype(np.uint32))
    out = _empty_selection(rows, n)
    pins = frozenset() if pool.pin is None else frozenset(np.flatnonzero((pool.pin != NONE).any(axis=0)).tolist())
    for position in range(min(n, width)):
        penalty, broken = _total_penalty(base, constraints)
        value = utility if pool.drawn_only is None else np.where(pool.drawn_only, -np.inf, utility)
        for preference in preferences:
            if (cost := preference.cost) is not None:
                value = value - cost
        if pool.floor is not None:
            value = np.where(pool.floor.find_low(value, penalty), -np.inf, value)
        if penalty is not None:
            value = value - penalty
        pick, pinned = value.argmax(axis=1), _find_pinned(pool.pin, position, utility) if position in pins else None
        if exploration is not None and exploration.explores(position):
            can = np.isfinite(utility) & np.isfinite(value[row, pick])[:, None]  # a slate ends with its greedy choices
            strain = (None, 0.0) if penalty is None else (penalty, penalty[row, pick])
            pick = _record_draw(out, position, exploration.draw(position, pick, can, *strain), pinned)
        if pinned is not None:
            pick = np.where(pinned != NONE, pinned, pick)
        place = pick + first
        out.column[:, position] = np.where(np.isfinite(utility.take(place)), pick, NONE)
        for bit, often in broken:
            if (hit := often.take(place) > 0).any():
                out.broken[:, position] |= hit.astype(np.uint32) << np.uint32(bit)
        utility.reshape(-1)[place] = -np.inf
        for preference in preferences:
            preference.add(position, place)
        for constraint in constraints:
            constraint.add(position, place)
    return _clear_empty(out)


def _utility(pool: Pool) -> np.ndarray:
    utility = pool.utility if pool.boost is None else pool.utility + np.clip(pool.boost, -MAX_BOOST, MAX_BOOST)
    return np.where(pool.allowed, utility, -np.inf)


def _base_penalty(pool: Pool) -> np.ndarray | None:
    """(B, K) penalty that is the same at every position; None: zero."""
    base = None if pool.finite.all() else NOT_FINITE_PENALTY * ~pool.finite
    if pool.pin is not None and (pool.pin != NONE).any():
        base = np.zeros(pool.utility.shape) if base is None else base
        row, position = np.nonzero(pool.pin != NONE)
        base[row, pool.pin[row, position]] += RESERVED
    return base


def _total_penalty(
    base: np.ndarray | None, constraints: Sequence[Constraint]
) -> tuple[np.ndarray | None, list[tuple[int, np.ndarray]]]:
    """Return (B, K) penalty of broken constraints, and the breaks of each constraint that some candidate breaks."""
    penalty, broken, weight = base, [], CONSTRAINT_PENALTY
    for bit, constraint in enumerate(constraints):
        if (often := constraint.breaks) is not None:
            cost = weight * np.minimum(often, MAX_BREAKS - 1)
            penalty = cost if penalty is None else penalty + cost
            broken.append((bit, often))
        weight = min(weight * MAX_BREAKS, MAX_PENALTY)
    return penalty, broken


def _find_pinned(pin: np.ndarray | None, position: int, utility: np.ndarray) -> np.ndarray:
    """Return (B,) column pinned to this position if it is allowed and not taken yet, else -1."""
    assert pin is not None
    wanted = pin[:, position]
    can = np.isfinite(utility[np.arange(len(wanted)), np.maximum(wanted, 0)])
    return np.where(can, wanted, NONE)


def _record_draw(out: Selection, position: int, draw: Draw, pinned: np.ndarray | None) -> np.ndarray:
    """Record a random draw, except in rows whose position is pinned; return the picked columns (B,)."""
    free = pinned == NONE if pinned is not None else np.ones(len(draw.pick), bool)
    out.propensity[:, position] = np.where(free, draw.propensity, 1)
    out.explored[:, position] = free & draw.explored
    return draw.pick


def _empty_selection(rows: int, n: int) -> Selection:
    return Selection(
        np.full((rows, n), NONE, np.int64), np.zeros((rows, n), np.uint32),
        np.ones((rows, n), np.float32), np.zeros((rows, n), bool),
    )  # fmt: skip


def _clear_empty(out: Selection) -> Selection:
    """Clear what was recorded for the positions after the last allowed candidate."""
    empty = out.column == NONE
    out.broken[empty], out.propensity[empty], out.explored[empty] = 0, 1, False
    return out
