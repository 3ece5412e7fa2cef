"""One item's way through the ranking stage: its score, what each feature adds to it, and its rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.protocols import RankingStage
from handsell.ranking.stage import LocalRanking


@runtime_checkable
class Explaining(Protocol):
    """A ranker that says what each feature adds to the raw score of a row."""

    def contributions(self, x: np.ndarray) -> tuple[np.ndarray, float]: ...


@dataclass(frozen=True, slots=True)
class RankingExplanation:
    rank: int  # 0 = best
    of: int  # candidates ranked
    k: int  # that go on to re-ranking
    score: float  # as served, 0..1 where a ranker scored
    raw: float | None  # what is ordered by; None without a ranker
    base: float | None  # raw score before any feature
    features: tuple[str, ...]  # F names
    values: np.ndarray  # (F,) float32, NaN = unknown
    contributions: np.ndarray  # (F,) float32, with `base` they sum to `raw`


async def explain_ranking(
    stage: RankingStage, requests: Requests, candidates: Candidates, item: int, k: int
) -> tuple[Candidates, RankingExplanation]:
    """Story of an item among the candidates of one request (B = 1), and the k best."""
    ranked = await stage.rank(requests, candidates, candidates.item.shape[1])
    rank = int(np.flatnonzero(ranked.item[0] == item)[0])
    of = int((ranked.item[0] != NONE).sum())
    told = _told(stage, requests, candidates, item)
    return ranked.take_columns(k), RankingExplanation(rank, of, k, float(ranked.score[0, rank]), *told)


def _told(
    stage: RankingStage, requests: Requests, candidates: Candidates, item: int
) -> tuple[float | None, float | None, tuple[str, ...], np.ndarray, np.ndarray]:
    """Raw score, base, names, values and contributions, as far as the ranker tells them."""
    nothing = np.zeros(0, np.float32)
    if not isinstance(stage, LocalRanking) or not isinstance(stage.ranker, Explaining) or not stage.ranks(requests)[0]:
        return None, None, (), nothing, nothing
    values = stage.matrix(requests, candidates)[0, np.flatnonzero(candidates.item[0] == item)[0]]
    contributions, base = stage.ranker.contributions(values)
    return float(contributions.sum(dtype=np.float64) + base), base, stage.ranker.features, values, contributions
