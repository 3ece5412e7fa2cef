"""Greedy selection of a slate: every position takes the candidate that is worth most, given what stands above.

    value = worth + boost − what preferences cost − SINK (score not finite) − what broken constraints cost

Constraints are given in the order in which they are relaxed: the first gives way first, and none gives way while a
candidate is left that keeps it (how often one is broken counts too). What was broken is said for every position.

Hooks for business rules: `Pool.boost` is added to the worth, `Pool.pin` sets a position's candidate, and a rule that
depends on what is chosen (a quota with pacing, say) is one more `Constraint` or `Preference` of the call.

The loop runs over positions, not over requests. A shorter slate is the beginning of a longer one, and a request's slate
does not depend on the batch that it came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from handsell.core.batches import NONE
from handsell.reranking.exploration import Exploration, Turn

MOST_BOOST = 40.0  # larger boosts, either way, count as this: a rule may not outbid SINK or a constraint
SINK = 100.0  # taken off candidates without a finite score: more than any worth, less than breaking a constraint
STRAIN = 1e3  # of breaking the first constraint once; each later one weighs MOST_BREAKS times as much …
MOST_STRAIN = 1e10  # … up to this: constraints after the fifth are not ordered among themselves
MOST_BREAKS = 64.0  # a constraint broken more often by one candidate counts as broken so often
RESERVED = 1e12  # of taking before its time what is pinned to a later position: only where nothing else is left


@dataclass(frozen=True, slots=True)
class Pool:
    """B requests' K candidates, best first: of equal ones the earlier is taken."""

    worth: np.ndarray  # (B, K) float64, what does not depend on the rest of the slate; about 0..1
    allowed: np.ndarray  # (B, K) bool, others are never chosen
    finite: np.ndarray  # (B, K) bool, the score is a number
    boost: np.ndarray | None = None  # (B, K) float, added to the worth; 1 = the whole span of relevance in a request
    pin: np.ndarray | None = None  # (B, n') int, the candidate's column that this position must take, -1 none


class Preference(Protocol):
    """Something that one would rather have than not."""

    @property
    def cost(self) -> np.ndarray | None:
        """(B, K) what each candidate costs at the next position; None: nothing, whichever it is."""
        ...

    def add(self, position: int, place: np.ndarray) -> None:
        """Flat places b·K + k (B,) stand at this position now."""
        ...


class Constraint(Protocol):
    """Something that holds, unless it cannot."""

    name: str

    @property
    def breaks(self) -> np.ndarray | None:
        """(B, K) float, how often each candidate would break it at the next position; None: none does."""
        ...

    def add(self, position: int, place: np.ndarray) -> None: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Chosen columns in slate order."""

    column: np.ndarray  # (B, n) int64, -1 where no allowed one is left
    broken: np.ndarray  # (B, n) uint32, bit c set where constraint c gave way for this position
    propensity: np.ndarray  # (B, n) float32, chance of this item at this position, given those above it
    explored: np.ndarray  # (B, n) bool, drawn, and not what would have stood there otherwise


def select(
    pool: Pool,
    n: int,
    preferences: Sequence[Preference] = (),
    constraints: Sequence[Constraint] = (),
    exploration: Exploration | None = None,
) -> Selection:
    """Slates of n positions, of as many items as are allowed."""
    rows, width = pool.worth.shape
    first = np.arange(rows) * width  # flat place of each row's first candidate
    worth, base = _worth(pool), _base(pool)
    out = _nothing(rows, n)
    pins = frozenset() if pool.pin is None else frozenset(np.flatnonzero((pool.pin != NONE).any(axis=0)).tolist())
    for position in range(min(n, width)):
        strain, broken = _strain(base, constraints)
        value = worth
        for preference in preferences:
            if (cost := preference.cost) is not None:
                value = value - cost
        if strain is not None:
            value = value - strain
        pick, pinned = value.argmax(axis=1), _pinned(pool.pin, position, worth) if position in pins else None
        if exploration is not None and exploration.at(position):
            pick = _explored(out, position, exploration.turn(position, pick, worth, strain), pinned)
        if pinned is not None:
            pick = np.where(pinned != NONE, pinned, pick)
        place = pick + first
        out.column[:, position] = pick
        for bit, often in broken:
            if (hit := often.take(place) > 0).any():
                out.broken[:, position] |= hit.astype(np.uint32) << np.uint32(bit)
        worth.reshape(-1)[place] = -np.inf
        for preference in preferences:
            preference.add(position, place)
        for constraint in constraints:
            constraint.add(position, place)
    return _cut(out, pool.allowed.sum(axis=1))


def _worth(pool: Pool) -> np.ndarray:
    worth = pool.worth if pool.boost is None else pool.worth + np.clip(pool.boost, -MOST_BOOST, MOST_BOOST)
    return np.where(pool.allowed, worth, -np.inf)


def _base(pool: Pool) -> np.ndarray | None:
    """(B, K) strain of candidates that holds at every position; None where there is none."""
    base = None if pool.finite.all() else SINK * ~pool.finite
    if pool.pin is not None and (pool.pin != NONE).any():
        base = np.zeros(pool.worth.shape) if base is None else base
        row, position = np.nonzero(pool.pin != NONE)
        base[row, pool.pin[row, position]] += RESERVED
    return base


def _strain(
    base: np.ndarray | None, constraints: Sequence[Constraint]
) -> tuple[np.ndarray | None, list[tuple[int, np.ndarray]]]:
    """(B, K) what broken constraints cost, and the breaks of each constraint that some candidate breaks."""
    strain, broken, weight = base, [], STRAIN
    for bit, constraint in enumerate(constraints):
        if (often := constraint.breaks) is not None:
            cost = weight * np.minimum(often, MOST_BREAKS - 1)
            strain = cost if strain is None else strain + cost
            broken.append((bit, often))
        weight = min(weight * MOST_BREAKS, MOST_STRAIN)
    return strain, broken


def _pinned(pin: np.ndarray | None, position: int, worth: np.ndarray) -> np.ndarray:
    """(B,) column pinned to this position where it is allowed and not taken yet, else -1."""
    assert pin is not None
    wanted = pin[:, position]
    can = np.isfinite(worth[np.arange(len(wanted)), np.maximum(wanted, 0)])
    return np.where(can, wanted, NONE)


def _explored(out: Selection, position: int, turn: Turn, pinned: np.ndarray | None) -> np.ndarray:
    """Write down what exploration did, but for rows whose position is pinned; (B,) what it picked."""
    free = pinned == NONE if pinned is not None else np.ones(len(turn.pick), bool)
    out.propensity[:, position] = np.where(free, turn.propensity, 1)
    out.explored[:, position] = free & turn.explored
    return turn.pick


def _nothing(rows: int, n: int) -> Selection:
    return Selection(
        np.full((rows, n), NONE, np.int64), np.zeros((rows, n), np.uint32),
        np.ones((rows, n), np.float32), np.zeros((rows, n), bool),
    )  # fmt: skip


def _cut(out: Selection, allowed: np.ndarray) -> Selection:
    """Positions beyond the allowed candidates are empty: allowed ones are always taken first."""
    beyond = np.arange(out.column.shape[1]) >= allowed[:, None]
    out.column[beyond], out.broken[beyond], out.propensity[beyond], out.explored[beyond] = NONE, 0, 1, False
    return out
