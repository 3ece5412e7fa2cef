"""Items without events in the fit window: where the funnel loses the relevant ones, and what places for them cost.

The whole ranker scores every candidate of a window. A margin is added to the raw scores of cold items; a factor
multiplies their fused scores, which is the price without a ranker. The larger they are, the more cold items come to the
first ten, and the more other items leave them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from handsell.bundles.stages import Stages
from handsell.catalog.new_items import POSITIVES
from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.evaluation.intervals import compare, estimate_means
from handsell.evaluation.metrics import Relevant, gains, ndcg, recall
from handsell.evaluation.replay_scores import HEADLINE, TOP
from handsell.features.item import ItemValues
from handsell.jobs.train.requests import EvaluationRequests
from handsell.ranking.stage import LocalRanking

MARGINS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
FACTORS = (1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 3.0)
CHUNK = 128  # requests at a time


@dataclass(frozen=True)
class ScoredWindow:
    """The candidates of R requests, their raw scores, and what is relevant."""

    item: np.ndarray  # (R, K) int32, -1 pads
    raw: np.ndarray  # (R, K) float32, NaN for padding
    fused: np.ndarray  # (R, K) float32, NaN for padding
    look: np.ndarray  # (R, K) bool, kept by the first look
    ranked: int  # candidates that ranking passes on
    cold: np.ndarray  # (I,) bool
    used: np.ndarray  # (N,) bool, relevant items with positive events before the request's day
    relevant: Relevant
    user: np.ndarray  # (R,)

    @classmethod
    def of(cls, stages: Stages, asked: EvaluationRequests, cold: np.ndarray) -> ScoredWindow:
        """Run candidates and ranking on all requests; needs a ranker."""
        ranking, k = stages.ranking, stages.config.retrieval.candidates
        assert isinstance(ranking, LocalRanking)
        item = np.full((len(asked), k), NONE, np.int32)
        raw, fused, look = *np.full((2, *item.shape), np.nan, np.float32), np.zeros(item.shape, bool)
        for start in range(0, len(asked), CHUNK):
            requests = asked.requests.take(slice(start, start + CHUNK))
            found = run_local(stages.candidates.candidates(requests, k)).take_columns(k)
            x, lists = ranking.read_rows(requests, found)
            at = slice(start, start + len(requests)), slice(0, found.item.shape[1])
            item[at], look[at] = found.item, ranking.look_first(x, lists.real, stages.config.ranking.ranked)
            raw[at] = ranking.score_rows(x, lists, lists.real)
            fused[at] = np.where(lists.real, found.fused, np.nan)
        used = find_used(asked.relevant, asked.requests.time, ranking.items)
        ranked = stages.config.ranking.ranked
        return cls(item, raw, fused, look, ranked, cold, used, asked.relevant, asked.requests.user)

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


def find_used(relevant: Relevant, time: np.ndarray, values: ItemValues) -> np.ndarray:
    """Return (N,) bool: the relevant items of requests at time (B,) that had positive events before that day."""
    items, column = relevant.item.values[:, None], values.names.index(POSITIVES)
    return values.gather(items, time[relevant.item.row_of_value])[:, 0, column] > 0


def count_losses(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Count the relevant cold items that are left after each step, and in the first ten.

    A second count has those with events between the fit window and the request. A served bundle is fitted on all
    events, and would know most of them.
    """
    is_cold = scored.cold[scored.relevant.item.values]
    every, used = scored.cold_relevant, scored.relevant.where(is_cold & scored.used)
    ranked = scored.order(np.where(scored.look, scored.raw, np.nan))
    steps = {
        "among the candidates": scored.item,
        "kept by the first look": np.where(scored.look, scored.item, NONE),
        f"first {scored.ranked} of the ranker": ranked[:, : scored.ranked],
        f"first {TOP} of the ranker": ranked[:, :TOP],
    }
    name, of = "cold relevant items", "with events since the fit"
    rows: list[dict[str, Any]] = [{name: "all", "count": len(every.item.values), of: len(used.item.values)}]
    for step, items in steps.items():
        counts = [int((gains(items, relevant) > 0).sum()) for relevant in (every, used)]
        rows.append({name: step, "count": counts[0], of: counts[1]})
    return rows


def count_hits(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Return how often an item is relevant: at some places of the ranker, and the best cold item of a request."""
    places = gains(scored.order(np.where(scored.look, scored.raw, np.nan)), scored.relevant) > 0
    best = gains(scored.order(np.where(scored.is_cold, scored.raw, np.nan))[:, :1], scored.relevant) > 0
    hits = {f"place {place}": places[:, place - 1] for place in (1, 10, scored.ranked)} | {"best cold item": best[:, 0]}
    found = estimate_means({name: values.astype(float) for name, values in hits.items()}, scored.user)
    return [{"item": name, "relevant": mean.mean, "low": mean.low, "high": mean.high} for name, mean in found.items()]


def price_margins(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Build a row per margin in the ranker's order, see `_price`."""
    return _price(scored, "margin", {m: scored.raw + np.float32(m) * scored.is_cold for m in MARGINS})


def price_factors(scored: ScoredWindow) -> list[dict[str, Any]]:
    """Build a row per factor in the fused order, see `_price`."""
    return _price(scored, "factor", {f: scored.fused * np.where(scored.is_cold, f, 1) for f in FACTORS})


def _price(scored: ScoredWindow, name: str, orders: dict[float, np.ndarray]) -> list[dict[str, Any]]:
    """Build a row per order of scores (R, K), of which the first is that without a change.

    NDCG@10, its difference to the first, recall@10 of cold items, and cold items in a list.
    """
    cold_relevant, rows, plain = scored.cold_relevant, [], None
    for value, scores in orders.items():
        items = scored.order(scores)[:, :TOP]
        ndcgs = ndcg(gains(items, scored.relevant), scored.relevant, TOP)
        plain = ndcgs if plain is None else plain
        against = compare(ndcgs, plain, scored.user)
        recalls = recall(gains(items, cold_relevant), cold_relevant, TOP)
        found = estimate_means({"recall": recalls}, scored.user)["recall"]
        shown = (scored.cold[np.maximum(items, 0)] & (items != NONE)).sum(axis=1).mean()
        rows.append(
            {name: value, HEADLINE: against.challenger, "difference": against.difference, "low": against.low,
             "high": against.high, "cold recall@10": found.mean, "recall low": found.low, "recall high": found.high,
             "cold items in a list": float(shown)}
        )  # fmt: skip
    return rows
