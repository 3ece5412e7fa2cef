"""Explain one item in the ranking stage: its rank, its score, and what each feature contributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.protocols import RankingStage
from handsell.ranking.stage import LocalRanking


@runtime_checkable
class ExplainableRanker(Protocol):
    """A ranker with additive contributions of features to the raw score of a row."""

    def contributions(self, x: np.ndarray) -> tuple[np.ndarray, float]: ...


@dataclass(frozen=True, slots=True)
class RankingExplanation:
    rank: int  # 0 = best
    of: int  # candidates ranked
    k: int  # candidates passed on to re-ranking
    score: float  # as served, 0..1 where a ranker scored
    raw: float | None  # decides the order; None without a ranker
    base: float | None  # raw score without any feature
    features: tuple[str, ...]  # F names
    values: np.ndarray  # (F,) float32, NaN = unknown
    contributions: np.ndarray  # (F,) float32, with `base` they sum to `raw`


async def explain_ranking(
    stage: RankingStage, requests: Requests, candidates: Candidates, item: int, k: int
) -> tuple[Candidates, RankingExplanation]:
    """Rank the candidates of one request (B = 1) and explain one; returns the k best and the explanation."""
    ranked = await stage.rank(requests, candidates, candidates.item.shape[1])
    rank = int(np.flatnonzero(ranked.item[0] == item)[0])
    of = int((ranked.item[0] != NONE).sum())
    contributions = _contributions(stage, requests, candidates, item)
    return ranked.take_columns(k), RankingExplanation(rank, of, k, float(ranked.score[0, rank]), *contributions)


def _contributions(
    stage: RankingStage, requests: Requests, candidates: Candidates, item: int
) -> tuple[float | None, float | None, tuple[str, ...], np.ndarray, np.ndarray]:
    """Return raw score, base, names, values and contributions; empty for a ranker that cannot explain."""
    nothing = np.zeros(0, np.float32)
    if (
        not isinstance(stage, LocalRanking)
        or not isinstance(stage.ranker, ExplainableRanker)
        or not stage.ranks(requests)[0]
    ):
        return None, None, (), nothing, nothing
    values = stage.matrix(requests, candidates)[0, np.flatnonzero(candidates.item[0] == item)[0]]
    contributions, base = stage.ranker.contributions(values)
    return float(contributions.sum(dtype=np.float64) + base), base, stage.ranker.features, values, contributions
