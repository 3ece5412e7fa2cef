"""The greedy selection of `selection.py` as one compiled loop, for the usual criteria."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from handsell.core.kernels import compiled
from handsell.reranking import calibrated, dpp
from handsell.reranking.calibrated import TasteCalibration
from handsell.reranking.dpp import Determinantal
from handsell.reranking.spacing import ItemGap

ABSENT = np.zeros(0)


def can_select(preferences: Sequence[Any], constraints: Sequence[Any]) -> bool:
    """Whether the loop knows the criteria: diversity, then calibration, and a gap, each at most once."""
    kinds = [type(one) for one in preferences]
    return (
        compiled is not None
        and kinds in ([], [Determinantal], [TasteCalibration], [Determinantal, TasteCalibration])
        and [type(one) for one in constraints] in ([], [ItemGap])
    )


def select_columns(
    utility: np.ndarray,
    penalty: np.ndarray | None,
    n: int,
    preferences: Sequence[Any],
    constraints: Sequence[Any],
    weight: float,
    most: float,
    floor: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns (B, n), -1 where none is left, and whether the gap is broken there (B, n) bool.

    `utility` (B, K) is -inf where not allowed; `weight` is the penalty of a broken gap, counted `most` times at most.
    `floor` is a `ScoreFloor` or None.
    """
    rows = len(utility)
    column, broken = np.full((rows, n), -1, np.int64), np.zeros((rows, n), bool)
    kernel, strength, shares, wanted, taste = ABSENT, np.zeros(rows), ABSENT.astype(np.float32), ABSENT, 0.0
    for one in preferences:
        if isinstance(one, Determinantal):
            kernel, strength = one.kernel, one.strength
        else:
            shares, wanted, taste = one.shares, one.wanted, one.strength
    related, gap = (constraints[0].related, constraints[0].gap) if constraints else (ABSENT.astype(bool), 0)
    share, score, leading = (0.0, ABSENT, ABSENT) if floor is None else (floor.share, floor.score, floor.leading)
    settings = [taste, calibrated.ALPHA, calibrated.TINY, 10.0**calibrated.DECIMALS, dpp.LEAST, weight, most, share]
    compiled.select_slates(
        np.ascontiguousarray(utility, np.float64),
        ABSENT if penalty is None else np.ascontiguousarray(penalty, np.float64),
        np.ascontiguousarray(kernel, np.float64), np.ascontiguousarray(strength, np.float64),
        np.ascontiguousarray(shares, np.float32), np.ascontiguousarray(wanted, np.float64),
        np.ascontiguousarray(related, bool), column, broken, np.array(settings),
        np.ascontiguousarray(score, np.float64), np.ascontiguousarray(leading, np.float64), gap,
    )  # fmt: skip
    return column, broken
