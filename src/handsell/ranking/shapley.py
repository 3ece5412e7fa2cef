"""Contributions of features to the score of a row, for a ranker of any kind: Shapley values by sampled orders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ORDERS = 8  # random orders of the features, each also taken in reverse


def sample_contributions(
    row: np.ndarray, score: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[np.ndarray, float]:
    """Return the contribution (F,) float32 of each feature of a row (F,) to its score, and the score without any.

    `score` maps rows (N, F) to scores (N,). In each of several random orders the known features are added to a row
    whose values are all missing; a feature contributes the mean change that it makes (@castro2009polynomial). With the
    score without any feature, the contributions sum to the row's score. The same seed gives the same contributions.
    """
    known, rng = np.flatnonzero(~np.isnan(row)), np.random.default_rng(seed)
    forward = [rng.permutation(known) for _ in range(ORDERS)]
    orders = np.array([order for each in forward for order in (each, each[::-1])], np.int64).reshape(2 * ORDERS, -1)
    place = np.full((len(orders), len(row)), len(row))  # of a feature in an order; a missing one is never added
    np.put_along_axis(place, orders, np.arange(len(known))[None], axis=1)
    added = place[:, None, :] < np.arange(len(known) + 1)[:, None]  # (orders, steps, F)
    rows = np.where(added, row, np.float32(np.nan)).reshape(-1, len(row))
    found = score(rows).astype(np.float64).reshape(len(orders), -1)
    total = np.zeros(len(row))
    np.add.at(total, orders, np.diff(found, axis=1))
    return (total / len(orders)).astype(np.float32), float(found[0, 0])
