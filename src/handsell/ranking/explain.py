"""Explain one item in the ranking stage: its rank, its score, and what each feature contributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.protocols import RankingStage
from handsell.ranking.lists import Lists
from handsell.ranking.stage import LocalRanking


@runtime_checkable
class ExplainableRanker(Protocol):
    """A ranker with additive contributions of features to the raw score of a row."""

    def contributions(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """(F,) → contributions (F,) and the raw score without any feature."""
        ...


@runtime_checkable
class ExplainableListRanker(Protocol):
    """A ranker with additive contributions of the features of a row, given the list that it is in."""

    def contributions_in_list(self, x: np.ndarray, row: int, lists: Lists) -> tuple[np.ndarray, float]:
        """(K, F) of one request → contributions (F,) of one row, and its raw score without any feature."""
        ...


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
    nothing: tuple[None, None, tuple[str, ...], np.ndarray, np.ndarray]
    nothing = None, None, (), np.zeros(0, np.float32), np.zeros(0, np.float32)
    if not isinstance(stage, LocalRanking) or not stage.ranks(requests)[0]:
        return nothing
    ranker, row = stage.ranker, int(np.flatnonzero(candidates.item[0] == item)[0])
    if isinstance(ranker, ExplainableListRanker):
        matrix, lists = stage.read_rows(requests, candidates)
        contributions, base = ranker.contributions_in_list(matrix[0], row, lists)
    elif isinstance(ranker, ExplainableRanker):
        matrix = stage.matrix(requests, candidates)
        contributions, base = ranker.contributions(matrix[0, row])
    else:
        return nothing
    raw = float(contributions.sum(dtype=np.float64) + base)
    return raw, base, ranker.features, matrix[0, row], contributions
