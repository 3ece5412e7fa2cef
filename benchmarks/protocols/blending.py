"""Weights of a blend by coordinate search on the validation part, with cached scores of its parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.protocols.coordinate_search import Params, Search, coordinate_search
from benchmarks.protocols.datasets import LabeledRequests
from benchmarks.protocols.protocol import OBJECTIVE, compute_metrics, split_batches
from handsell.core.batches import NONE
from handsell.retrieval.models.blend import Blend, select_best

VALUES = (1.0, 0.5, 2.0, 0.2, 0.7, 1.5, 4.0, 0.1, 0.0)  # weights to try, before normalization


def tune_weights(
    blend: Blend, labeled: LabeledRequests, k: int, masks_history: bool, budget_s: float
) -> tuple[tuple[float, ...], Search]:
    """Return weights that sum to 1, in the order of the parts, and the search."""
    cached = [
        (rows, *blend.standardize(requests, k, eligible))
        for rows, requests, eligible in split_batches(labeled, blend.n_items, masks_history)
    ]

    def evaluate(params: Params) -> float:
        if not any(params.values()):
            return -1.0
        weighted = replace(blend, weights=normalize_weights(params))
        found = np.full((len(labeled), k), NONE, np.int32)
        for rows, items, standard in cached:
            found[rows], _ = select_best(items, weighted.combine(standard), k)
        return compute_metrics(found, labeled, k)[OBJECTIVE]

    search = coordinate_search(dict.fromkeys(blend.parts, VALUES), evaluate, budget_s)
    return normalize_weights(search.best.params), search


def normalize_weights(params: Params) -> tuple[float, ...]:
    total = sum(params.values())
    return tuple(round(value / total, 4) for value in params.values())
