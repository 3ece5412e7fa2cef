"""Weights of a blend by coordinate search on the validation part; the parts' scores are computed once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.protocols.coordinate_search import Params, Search, coordinate_search
from benchmarks.protocols.datasets import Questions
from benchmarks.protocols.protocol import OBJECTIVE, batches, figures
from handsell.core.batches import NONE
from handsell.retrieval.models.blend import Blend, select_best

VALUES = (1.0, 0.5, 2.0, 0.2, 0.7, 1.5, 4.0, 0.1, 0.0)  # of a part's weight, before they are made to sum to 1


def tuned_weights(
    blend: Blend, questions: Questions, k: int, masks_history: bool, budget_s: float
) -> tuple[tuple[float, ...], Search]:
    """Weights that sum to 1, in the order of the parts, and what was tried."""
    cached = [
        (rows, *blend.standardize(requests, k, eligible))
        for rows, requests, eligible in batches(questions, blend.n_items, masks_history)
    ]

    def tried(params: Params) -> float:
        if not any(params.values()):
            return -1.0
        weighted = replace(blend, weights=summing_to_one(params))
        found = np.full((len(questions), k), NONE, np.int32)
        for rows, items, standard in cached:
            found[rows], _ = select_best(items, weighted.combine(standard), k)
        return figures(found, questions, k)[OBJECTIVE]

    search = coordinate_search(dict.fromkeys(blend.parts, VALUES), tried, budget_s)
    return summing_to_one(search.best.params), search


def summing_to_one(params: Params) -> tuple[float, ...]:
    total = sum(params.values())
    return tuple(round(value / total, 4) for value in params.values())
