"""Explain the place of one item: its place in the slate, and which parts of re-ranking moved it.

Each part is left out in turn, the slate is made again, and the places are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handsell.core.batches import Candidates, Requests, Slates
from handsell.reranking.config import ExplorationConfig, FatigueConfig
from handsell.reranking.stage import LocalReranking


def _with_settings(**off: Any) -> Callable[[LocalReranking], LocalReranking]:
    """Return a function that changes fields of [reranking]."""

    def without(stage: LocalReranking) -> LocalReranking:
        reranking = stage.config.reranking.model_copy(update=off)
        return replace(stage, config=stage.config.model_copy(update={"reranking": reranking}))

    return without


WITHOUT: dict[str, Callable[[LocalReranking], LocalReranking]] = {
    "diversity": _with_settings(diversity=0.0),
    "same_creator_gap": _with_settings(same_creator_gap=0),
    "category_window": _with_settings(category_window=0),
    "calibration": _with_settings(calibration=0.0),
    "novelty": _with_settings(novelty=0.0),
    "serendipity": _with_settings(serendipity=0.0),
    "floor": _with_settings(floor=0.0),
    "exploration": lambda stage: replace(
        _with_settings(exploration=ExplorationConfig(share=0.0))(stage), new_items=None
    ),
    "fatigue": _with_settings(fatigue=FatigueConfig()),
    "business_rules": lambda stage: replace(stage, rules=None),
}
"""Part of re-ranking → the stage without it. `business_rules` are all rules of the file."""


@dataclass(frozen=True, slots=True)
class RerankingExplanation:
    """Places count from 0 in the order of all ranked candidates; a slate is the beginning of that order."""

    before: int  # place in the order of ranking
    place: int | None  # None if eligibility or a rule removes the item
    without: dict[str, int | None]  # enabled part of re-ranking → place without it

    @property
    def moved_by(self) -> tuple[str, ...]:
        return tuple(part for part, place in self.without.items() if place != self.place)


async def explain_reranking(
    stage: LocalReranking, requests: Requests, ranked: Candidates, item: int
) -> tuple[Slates, RerankingExplanation]:
    """Explain an item among the ranked candidates of one request (B = 1); also return the order of all of them."""
    stage = stage.without_counting
    order = await stage.rerank(requests, ranked, ranked.item.shape[1])
    without = {}
    for part, leave_out in WITHOUT.items():
        other = leave_out(stage)
        if other.settings == stage.settings and other.rules is stage.rules and other.new_items is stage.new_items:
            continue  # disabled
        without[part] = _find_place(await other.rerank(requests, ranked, ranked.item.shape[1]), item)
    before = int(np.flatnonzero(ranked.item[0] == item)[0])
    return order, RerankingExplanation(before, _find_place(order, item), without)


async def rerank_uncounted(stage: LocalReranking, requests: Requests, ranked: Candidates, n: int) -> Slates:
    """Make slates that no user sees: rules do not count them."""
    return await stage.without_counting.rerank(requests, ranked, n)


def _find_place(slates: Slates, item: int) -> int | None:
    at = np.flatnonzero(slates.item[0] == item)
    return int(at[0]) if len(at) else None
