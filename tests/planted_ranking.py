"""Ranking groups whose truth is known by construction, as shards on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handsell.ranking.examples import Coverage, Examples
from handsell.ranking.shards import write_shards

FEATURES = ("taste", "age", "fits_hour", "noise", "often_missing")
GROUP = 40


def utility(x: np.ndarray) -> np.ndarray:
    """(…, F) → (…): taste counts only where the hour fits, and old items lose: no linear order of one column."""
    return 2.0 * x[..., 0] * (x[..., 2] > 0) - np.abs(x[..., 1] - 0.5) * 2


def planted(rng: np.random.Generator, groups: int, first: int = 0) -> Examples:
    """Groups of GROUP candidates; the three of largest noisy utility are positive, graded 3, 2, 1."""
    x = rng.normal(size=(groups, GROUP, len(FEATURES))).astype(np.float32)
    x[..., 4][rng.random(x.shape[:2]) < 0.7] = np.nan
    noisy = utility(x) + rng.gumbel(0, 0.3, x.shape[:2])
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


def write_planted(folder: Path, rng: np.random.Generator, groups: int, shards: int = 2, first: int = 0) -> Examples:
    examples = planted(rng, groups, first)
    write_shards(examples, FEATURES, folder, "part-00000", shards)
    return examples


def ndcg(score: np.ndarray, label: np.ndarray, k: int = 10) -> float:
    """Mean NDCG@k with gain 2**label - 1 over rows (B, K)."""
    gain, discount = 2.0**label - 1, 1 / np.log2(np.arange(2, k + 2))
    ranked = np.take_along_axis(gain, np.argsort(-score, axis=1, kind="stable"), 1)[:, :k]
    ideal = -np.sort(-gain, axis=1)[:, :k]
    return float(((ranked * discount).sum(1) / (ideal * discount).sum(1)).mean())
