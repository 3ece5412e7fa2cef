"""Coordinate search in two stages: where the budget would cut it, first on a part of the data, then on all of it.

A trial on a fifth of the lines costs a fraction, and mostly orders hyper-parameters alike. What decides is always a
trial on all lines, of which the first two are the first values of the space and the best of the part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.protocols.coordinate_search import Params, Search, coordinate_search
from benchmarks.protocols.datasets import Part

PART_OF_LINES = 0.2
PART_OF_BUDGET = 0.5
PART_REQUESTS = 1_500

Evaluate = Callable[[Params], float]
OnTrial = Callable[[Search, float], None]


def staged_search(
    space: Mapping[str, Sequence[Any]], evaluate: Evaluate, evaluate_part: Evaluate, budget_s: float,
    on_trial: OnTrial, on_part_trial: OnTrial,
) -> Search:  # fmt: skip
    """Maximize `evaluate`; the trials of `evaluate_part` are in `on_part` of the result."""
    begun = time.monotonic()
    first = coordinate_search(space, evaluate, 0, on_trial)
    left_s = budget_s - (time.monotonic() - begun)
    starts: list[Params] = []
    on_part: Search | None = None
    trial_s = first.trials[0].seconds
    part_s = min(PART_OF_BUDGET * left_s, left_s - 2 * trial_s)  # two trials on all lines must remain
    if count_round(space) * trial_s > left_s and part_s > 0:
        on_part = coordinate_search(space, evaluate_part, part_s, on_part_trial)
        starts = [on_part.best.params]
        left_s = budget_s - (time.monotonic() - begun)
    found = coordinate_search(space, evaluate, left_s, on_trial, starts=starts, earlier=first.trials)
    found.on_part = on_part.trials if on_part else []
    return found


def count_round(space: Mapping[str, Sequence[Any]]) -> int:
    """Return the number of trials in which each value of each field has been tried once."""
    return 1 + sum(len(values) - 1 for values in space.values())


def take_part(part: Part, rng: np.random.Generator) -> Part:
    """Return the events of some of the lines, and some of the requests; items keep their numbers."""
    events, requests = part.events, part.requests
    lines = rng.random(events.n_users) < PART_OF_LINES
    if len(requests) > PART_REQUESTS:
        requests = requests.take(np.sort(rng.choice(len(requests), PART_REQUESTS, replace=False)))
    return Part(events.where(lines[events.user]), requests)
