"""One item's way through the re-ranking stage: where it comes, and which rule moved it.

A rule is found by leaving it out: the slate is made once more without it, and the item's place compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handsell.core.batches import Candidates, Requests, Slates
from handsell.reranking.config import ExplorationConfig
from handsell.reranking.stage import LocalReranking


def _dial(**off: Any) -> Callable[[LocalReranking], LocalReranking]:
    """Sets fields of [reranking]."""

    def without(stage: LocalReranking) -> LocalReranking:
        reranking = stage.config.reranking.model_copy(update=off)
        return replace(stage, config=stage.config.model_copy(update={"reranking": reranking}))

    return without


WITHOUT: dict[str, Callable[[LocalReranking], LocalReranking]] = {
    "diversity": _dial(diversity=0.0),
    "same_creator_gap": _dial(same_creator_gap=0),
    "category_window": _dial(category_window=0),
    "calibration": _dial(calibration=0.0),
    "novelty": _dial(novelty=0.0),
    "serendipity": _dial(serendipity=0.0),
    "exploration": _dial(exploration=ExplorationConfig(share=0.0)),
    "business_rules": lambda stage: replace(stage, rules=None),
}
"""Rule → the stage without it. A new rule of the stage has its line here."""


@dataclass(frozen=True, slots=True)
class RerankingExplanation:
    """Places count from 0 in the order of all candidates that came from ranking; a slate is its beginning."""

    before: int  # rank that it came with
    place: int | None  # None where eligibility, checked once more, does not allow it
    without: dict[str, int | None]  # place with one rule left out, of those that are on

    @property
    def moved_by(self) -> tuple[str, ...]:
        return tuple(rule for rule, place in self.without.items() if place != self.place)


async def explain_reranking(
    stage: LocalReranking, requests: Requests, ranked: Candidates, item: int
) -> tuple[Slates, RerankingExplanation]:
    """Story of an item among the ranked candidates of one request (B = 1), and the order of all of them."""
    stage = stage.unseen
    order = await stage.rerank(requests, ranked, ranked.item.shape[1])
    without = {}
    for rule, without_rule in WITHOUT.items():
        other = without_rule(stage)
        if other.dials == stage.dials and other.rules is stage.rules:
            continue  # it is off
        without[rule] = _place(await other.rerank(requests, ranked, ranked.item.shape[1]), item)
    before = int(np.flatnonzero(ranked.item[0] == item)[0])
    return order, RerankingExplanation(before, _place(order, item), without)


def _place(slates: Slates, item: int) -> int | None:
    at = np.flatnonzero(slates.item[0] == item)
    return int(at[0]) if len(at) else None
