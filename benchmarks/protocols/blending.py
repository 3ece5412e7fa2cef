"""Weights of a blend by coordinate search on the validation part, with cached scores of its parts.

The search starts from equal weights and from all the weight on each part, so that the chosen blend is never worse on
the validation part than the best of its parts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.protocols.coordinate_search import Params, Search, coordinate_search
from benchmarks.protocols.datasets import LabeledRequests
from benchmarks.protocols.protocol import OBJECTIVE, compute_metrics, measure, split_batches
from handsell.core.batches import NONE
from handsell.retrieval.models.blend import Blend, select_best

VALUES = (1.0, 0.5, 2.0, 0.2, 0.7, 1.5, 4.0, 0.1, 0.0)  # weights to try, before normalization


def tune_weights(
    blend: Blend, labeled: LabeledRequests, k: int, masks_history: bool, budget_s: float
) -> tuple[tuple[float, ...], Search]:
    """Return weights that sum to 1, in the order of the parts, and the search."""
    cached = [
        (rows, blend.standardize(requests, k, eligible))
        for rows, requests, eligible in split_batches(labeled, blend.n_items, masks_history)
    ]
    known: dict[tuple[float, ...], float] = {}

    def evaluate(params: Params) -> float:
        weights = normalize_weights(params)
        if weights not in known:
            known[weights] = measure_weights(weights)
        return known[weights]

    def measure_weights(weights: tuple[float, ...]) -> float:
        if max(weights) == 1.0:  # the part's own answers, whose ties standardization may break
            alone = replace(blend, weights=weights)
            return measure(alone, labeled, k, blend.n_items, masks_history)[OBJECTIVE]
        found = np.full((len(labeled), k), NONE, np.int32)
        for rows, scores in cached:
            found[rows], _ = select_best(scores.items, scores.combine(weights), k)
        return compute_metrics(found, labeled, k)[OBJECTIVE]

    names = list(blend.parts)
    starts = [{name: float(name == part) for name in names} for part in names]
    search = coordinate_search(
        dict.fromkeys(names, VALUES), evaluate, budget_s, starts=starts, admits=lambda params: any(params.values())
    )
    return normalize_weights(search.best.params), search


def normalize_weights(params: Params) -> tuple[float, ...]:
    total = sum(params.values())
    return tuple(round(value / total, 4) for value in params.values())
