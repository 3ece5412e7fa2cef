"""Ranker examples in which the right order is known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handsell.ranking.examples import Coverage, Examples
from handsell.ranking.shards import write_shards

FEATURES = ("taste", "age", "fits_hour", "noise", "often_missing")
GROUP = 40  # candidates per group


def compute_utility(x: np.ndarray) -> np.ndarray:
    """Return the true utility (…) of features (…, F).

    It is not linear in any column: `taste` counts only where `fits_hour` is positive, and an age of 0.5 is the best.
    """
    return 2.0 * x[..., 0] * (x[..., 2] > 0) - np.abs(x[..., 1] - 0.5) * 2


def plant_groups(rng: np.random.Generator, groups: int, first: int = 0) -> Examples:
    """Return groups of GROUP candidates in which the three of the largest noisy utility have labels 3, 2 and 1."""
    x = rng.normal(size=(groups, GROUP, len(FEATURES))).astype(np.float32)
    x[..., 4][rng.random(x.shape[:2]) < 0.7] = np.nan
    noisy = compute_utility(x) + rng.gumbel(0, 0.3, x.shape[:2])
    place = np.argsort(np.argsort(-noisy, axis=1), axis=1)
    qid = np.repeat(np.arange(first, first + groups, dtype=np.int64) * 7919, GROUP)
    return Examples(
        qid=qid,
        item=np.tile(np.arange(GROUP, dtype=np.int32), groups),
        label=np.clip(3 - place, 0, 3).astype(np.int8).ravel(),
        weight=np.ones(len(qid), np.float32),
        x=x.reshape(-1, len(FEATURES)),
        coverage=Coverage(groups, groups, 3 * groups, 3 * groups),
    )


def write_groups(folder: Path, rng: np.random.Generator, groups: int, shards: int = 2, first: int = 0) -> Examples:
    """Write planted groups as shards that a ranker is fitted from, and return them."""
    examples = plant_groups(rng, groups, first)
    write_shards(examples, FEATURES, folder, "part-00000", shards)
    return examples


def ndcg(score: np.ndarray, label: np.ndarray, k: int = 10) -> float:
    """Return the mean NDCG@k of rows (B, K), with the gain 2**label - 1."""
    gain, discount = 2.0**label - 1, 1 / np.log2(np.arange(2, k + 2))
    ranked = np.take_along_axis(gain, np.argsort(-score, axis=1, kind="stable"), 1)[:, :k]
    ideal = -np.sort(-gain, axis=1)[:, :k]
    return float(((ranked * discount).sum(1) / (ideal * discount).sum(1)).mean())
