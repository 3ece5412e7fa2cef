"""Metrics in the words of a product manager: a name, what it means, and how its values read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["share", "number", "bits", "change"]
Better = Literal["higher", "lower", "neither"]
NONE = "–"


@dataclass(frozen=True, slots=True)
class MetricWords:
    """How a metric is shown."""

    title: str
    meaning: str
    kind: Kind = "share"
    better: Better = "neither"

    def show(self, value: float | None) -> str:
        """Return a value as people read it."""
        if value is None or not math.isfinite(value):
            return NONE
        if self.kind == "share":
            return f"{value:.1%}" if abs(value) < 0.1 else f"{value:.0%}"
        if self.kind == "change":
            return f"{value:+.2f} bits"
        return f"{value:.1f} bits" if self.kind == "bits" else f"{value:.3f}"


METRICS: dict[str, MetricWords] = {
    "ndcg": MetricWords(
        "Hits per request (NDCG)",
        "How much of what people chose next stands in their ten items, with more credit near the top, over all "
        "requests of the test. 1 is perfect, and out of reach: nobody knows the future.",
        "number", "higher",
    ),
    "recall": MetricWords(
        "Found", "Share of the items that people chose next which stand in their ten items.", "share", "higher"
    ),
    "hit_rate": MetricWords(
        "Lists with a hit", "Share of lists with at least one item that the person chose next.", "share", "higher"
    ),
    "mrr": MetricWords(
        "First hit", "1 if the first item is a hit, 1/2 if the second is, and so on.", "number", "higher"
    ),
    "diversity": MetricWords(
        "Variety within a list",
        "How different the items of one list are, by their tags. 0 %: all alike. 100 %: nothing in common.",
    ),
    "coverage": MetricWords(
        "Catalog shown", "Share of the available items that stand in any list. It grows with the number of lists.",
        "share", "higher",
    ),
    "creator_coverage": MetricWords(
        "Creators shown", "Share of the creators who stand in any list.", "share", "higher"
    ),
    "gini": MetricWords(
        "Concentration",
        "How unequally items are shown. 0 %: all equally often. 100 %: one item takes every place.", "share", "lower",
    ),
    "novelty": MetricWords(
        "Unfamiliarity", "How rarely people have chosen the shown items. One bit more means half as popular.", "bits"
    ),
    "serendipity": MetricWords(
        "Surprising hits", "Share of a list that is a hit and not among the most popular items.", "share", "higher"
    ),
    "calibration_error": MetricWords(
        "Distance from people's tastes",
        "How much the mix of tags in a list differs from the mix that the person likes. 0 is the same mix.",
        "number", "lower",
    ),
    "small_creators": MetricWords(
        "Places for small creators",
        "Share of places with items of small creators, who together have a fifth of all events.",
    ),
    "drift": MetricWords(
        "Drift of variety",
        "How the variety of tags that a person is shown changes over time. Below 0, people's lists become narrower.",
        "change",
    ),
    "repeat_rate": MetricWords("Repeated", "Share of a list that the person was also shown in the list before."),
}  # fmt: skip

HITS_PER_PERSON = MetricWords(
    "Hits per person (NDCG)",
    "How much of what a person chose next stands in their ten items, with more credit near the top. One list per "
    "person, all made at the start of the test, so that each person counts once.",
    "number", "higher",
)  # fmt: skip
CREATOR_WORDS = {"large": "large creators", "middle": "middle-sized creators", "small": "small creators"}
MODEL_WORDS = {
    "funnel": "Lists as people get them",
    "ranker": "Before re-ranking",
    "blend": "Sources combined, without the ranker",
    "oracle": "The best that is possible, with the true preferences",
    "popularity": "Most popular items",
    "history": "What the person chose before",
    "item_knn": "Chosen by people who chose the same items",
    "user_knn": "Liked by people with similar taste",
    "als": "Taste profile (matrix factorization)",
    "ease": "Items that go together (EASE)",
    "spectral": "Items that go together (spectral)",
    "two_tower": "Taste profile (neural network)",
    "sasrec": "What comes next (neural network)",
    "session_knn": "Similar visits",
    "transitions": "What people choose next",
    "content": "Similar by tags, creators and text",
    "trending": "Rising this week",
    "bought_together": "Chosen together",
}
BASELINE = "baseline: "


def name_model(name: str) -> str:
    """Return the words for a model of a report; a name that has none, as of a plug-in, stays."""
    if name.startswith(BASELINE):
        return f"Simple rule: {name.removeprefix(BASELINE)}"
    return MODEL_WORDS.get(name, name)


def find_metric(name: str) -> MetricWords | None:
    """Return the words for a metric such as `diversity@10`, None for one that has none."""
    return METRICS.get(name.partition("@")[0])
