"""Choose the sources and weights of the fused order: add one source at a time while validation NDCG@10 rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handsell.jobs.tuning.validation_window import TOP, RankedLists, ValidationWindow
from handsell.retrieval.config import MAX_SOURCES
from handsell.retrieval.fusion import fuse_sources

MIN_GAIN = 0.005  # relative NDCG@10 that a source must add
OTHER_WEIGHTS = (2.0, 0.5)  # tried for each source after all are chosen
LOW_WEIGHT = 0.1  # of a required source that adds nothing for the window's requests


@dataclass(frozen=True)
class FusionWeights:
    """Weights of the chosen sources, NDCG@10 of their fused order, and the gain of each source when it was added."""

    weights: dict[str, float]
    ndcg: float
    gain: dict[str, float]


def grow_fusion(
    lists: Mapping[str, RankedLists], alone: Mapping[str, float], window: ValidationWindow, required: Sequence[str]
) -> FusionWeights:
    """Choose among the sources in `lists`, starting from the best in `alone`, NDCG@10 by source.

    At most MAX_SOURCES are chosen, the required ones always.
    """

    def measure_ndcg(weights: Mapping[str, float]) -> float:
        found = fuse_sources([lists[n] for n in weights], tuple(weights), list(weights.values()), TOP)
        return window.ndcg(found.item)

    names = list(lists)
    first = max(required if len(required) >= MAX_SOURCES else names, key=lambda name: alone[name])
    weights, best, gain = {first: 1.0}, alone[first], {first: alone[first]}

    def list_remaining() -> list[str]:
        full = len({*weights, *required}) >= MAX_SOURCES
        return [name for name in names if name not in weights and (name in required or not full)]

    while list_remaining():
        trials = {name: measure_ndcg({**weights, name: 1.0}) for name in list_remaining()}
        name = max(trials, key=trials.__getitem__)
        if trials[name] < best * (1 + MIN_GAIN):
            break
        weights[name], gain[name], best = 1.0, trials[name] - best, trials[name]
    for name in list(weights) * (len(weights) > 1):
        for weight in OTHER_WEIGHTS:
            value = measure_ndcg({**weights, name: weight})
            if value >= best * (1 + MIN_GAIN):
                weights[name], best = weight, value
    weights |= {name: LOW_WEIGHT for name in required if name not in weights}
    return FusionWeights(weights, measure_ndcg(weights), gain)
