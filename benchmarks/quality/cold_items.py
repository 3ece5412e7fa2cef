"""Items without events in the fit window: where the funnel loses the relevant ones, and what places for them cost.

The whole ranker scores every candidate of a window. A margin is a number that is added to the raw scores of cold items:
the larger it is, the more of them come to the first ten, and the more other items leave them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from handsell.bundles.stages import Stages
from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.evaluation.intervals import compare, estimate_means
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.replay_scores import HEADLINE, TOP
from handsell.jobs.train.requests import EvaluationRequests
from handsell.ranking.stage import LocalRanking

MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
CHUNK = 128  # requests at a time


@dataclass(frozen=True)
class ScoredWindow:
    """The candidates of R requests, their raw scores, and what is relevant."""

    item: np.ndarray  # (R, K) int32, -1 pads
    raw: np.ndarray  # (R, K) float32, NaN for padding
    look: np.ndarray  # (R, K) bool, kept by the first look
    ranked: int  # candidates that ranking passes on
    cold: np.ndarray  # (I,) bool
    relevant: Relevant
    user: np.ndarray  # (R,)

    @classmethod
    def of(cls, stages: Stages, asked: EvaluationRequests, cold: np.ndarray) -> ScoredWindow:
        """Run candidates and ranking on all requests; needs a ranker."""
        ranking, k = stages.ranking, stages.config.retrieval.candidates
        assert isinstance(ranking, LocalRanking)
        item = np.full((len(asked), k), NONE, np.int32)
        raw, look = np.full(item.shape, np.nan, np.float32), np.zeros(item.shape, bool)
        for start in range(0, len(asked), CHUNK):
            requests = asked.requests.take(slice(start, start + CHUNK))
            found = run_local(stages.candidates.candidates(requests, k)).take_columns(k)
            x, lists = ranking.read_rows(requests, found)
            at = slice(start, start + len(requests)), slice(0, found.item.shape[1])
            item[at], look[at] = found.item, ranking.look_first(x, lists.real, stages.config.ranking.ranked)
            raw[at] = ranking.score_rows(x, lists, lists.real)
        return cls(item, raw, look, stages.config.ranking.ranked, cold, asked.relevant, asked.requests.user)

    @property
    def is_cold(self) -> np.ndarray:
        """(R, K) bool."""
        return self.cold[np.maximum(self.item, 0)] & (self.item != NONE)

    @property
    def cold_relevant(self) -> Relevant:
        return self.relevant.where(self.cold[self.relevant.item.values])

    def order(self, raw: np.ndarray) -> np.ndarray:
        """Return the items (R, K) by scores (R, K), best first; -1 for those without a score, which are last."""
        columns = np.argsort(np.where(np.isfinite(raw), -raw, np.inf), axis=1, kind="stable")
        items = np.take_along_axis(self.item, columns, 1)
        return np.where(np.isfinite(np.take_along_axis(raw, columns, 1)), items, NONE)


def count_losses(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Count the relevant cold items that are left after each step, and in the first ten."""
    relevant, seen = scored.cold_relevant, np.where(scored.look, scored.raw, np.nan)
    ranked = scored.order(seen)

    def count(items: np.ndarray) -> int:
        return int((gains(items, relevant) > 0).sum())

    return [
        {"cold relevant items": name, "count": number}
        for name, number in {
            "all": len(relevant.item.values),
            "among the candidates": count(scored.item),
            "kept by the first look": count(np.where(scored.look, scored.item, NONE)),
            f"first {scored.ranked} of the ranker": count(ranked[:, : scored.ranked]),
            f"first {TOP} of the ranker": count(ranked[:, :TOP]),
        }.items()
    ]


def count_hits(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Return how often an item is relevant: at some places of the ranker, and the best cold item of a request."""
    places = gains(scored.order(np.where(scored.look, scored.raw, np.nan)), scored.relevant) > 0
    best = gains(scored.order(np.where(scored.is_cold, scored.raw, np.nan))[:, :1], scored.relevant) > 0
    hits = {f"place {place}": places[:, place - 1] for place in (1, 10, scored.ranked)} | {"best cold item": best[:, 0]}
    found = estimate_means({name: values.astype(float) for name, values in hits.items()}, scored.user)
    return [{"item": name, "relevant": mean.mean, "low": mean.low, "high": mean.high} for name, mean in found.items()]


def price_margins(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Build a row per margin: NDCG@10, its difference to no margin, recall@10 of cold items, cold items in a list."""
    cold_relevant, rows, plain = scored.cold_relevant, [], None
    for margin in MARGINS:
        items = scored.order(scored.raw + np.float32(margin) * scored.is_cold)[:, :TOP]
        value = ndcg(gains(items, scored.relevant), scored.relevant, TOP)
        plain = value if plain is None else plain
        against = compare(value, plain, scored.user)
        found = estimate_means({"recall": recall(gains(items, cold_relevant), cold_relevant, TOP)}, scored.user)[
            "recall"
        ]
        shown = (scored.cold[np.maximum(items, 0)] & (items != NONE)).sum(axis=1).mean()
        rows.append(
            {"margin": margin, HEADLINE: against.challenger, "difference": against.difference, "low": against.low,
             "high": against.high, "cold recall@10": found.mean, "recall low": found.low, "recall high": found.high,
             "cold items in a list": float(shown)}
        )  # fmt: skip
    return rows
