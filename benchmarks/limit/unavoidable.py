"""What no implementation of the funnel avoids: products with item matrices, partial sorts, and the trees.

Inputs are ready before the clock starts: query vectors, feature matrices, and the trees' library.
"""

from __future__ import annotations

import numpy as np

from benchmarks.limit.funnel_process import Clocks, read_clocks
from handsell.bundles.stages import Stages
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.funnel import run_local
from handsell.ranking.stage import LocalRanking
from handsell.ranking.xgboost_ranker import XGBoostRanker
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.index.vector_index import VectorIndex

PARTS = ("products and partial sorts", "trees")
Search = tuple[np.ndarray, np.ndarray, int]  # queries (B, D), item vectors (I, D), k


class Limit:
    """The unavoidable part of one batch of requests."""

    def __init__(self, stages: Stages, requests: Requests):
        self.searches = list(_find_searches(stages, requests))
        self.few, self.rest, self.ranker = _build_rows(stages, requests)
        settings = stages.config.ranking
        self.first_trees = min(settings.first_look_trees, self.ranker.booster.num_boosted_rounds())

    def run(self) -> dict[str, Clocks]:
        """Compute it once; CPU and wall seconds of each part."""
        clocks = [read_clocks()]
        for queries, vectors, k in self.searches:
            scores = queries @ vectors.T
            np.argpartition(scores, scores.shape[1] - k, axis=1)
        clocks.append(read_clocks())
        for rows, trees in ((self.few, self.first_trees), (self.rest, 0)):
            if len(rows):
                self.ranker.booster.inplace_predict(
                    rows, iteration_range=(0, trees), predict_type="margin", missing=np.nan, validate_features=False
                )
        clocks.append(read_clocks())
        return {
            part: (ended[0] - begun[0], ended[1] - begun[1])
            for part, begun, ended in zip(PARTS, clocks, clocks[1:], strict=False)
        }


def _find_searches(stages: Stages, requests: Requests):
    for name in stages.candidates.sources:
        retriever = stages.candidates.retrievers[name]
        if not isinstance(retriever, EmbeddingRetriever) or not isinstance(retriever.index, VectorIndex):
            continue
        if retriever.index.approximate is None and len(retriever.index.vectors):
            vectors = np.ascontiguousarray(retriever.index.vectors, np.float32)
            yield retriever.encoder.encode(requests), vectors, min(stages.candidates.find_k(name), len(vectors))


def _build_rows(stages: Stages, requests: Requests) -> tuple[np.ndarray, np.ndarray, XGBoostRanker]:
    """Feature rows of all candidates, if the first look reads them, and of those that the whole ranker scores."""
    ranking = stages.ranking
    assert isinstance(ranking, LocalRanking) and isinstance(ranking.ranker, XGBoostRanker)
    funnel, settings = stages.funnel, stages.config.ranking
    found: Candidates = run_local(funnel.candidates.candidates(requests, funnel.k))
    x, real = ranking.matrix(requests, found), found.item != NONE
    keeps = max(settings.first_look_keeps, funnel.ranked)
    if not settings.first_look_trees or real.shape[1] <= keeps:
        return np.zeros((0, x.shape[2]), np.float32), x[real], ranking.ranker
    kept = real & (np.cumsum(real, axis=1) <= keeps)
    return np.ascontiguousarray(x[real]), np.ascontiguousarray(x[kept]), ranking.ranker
