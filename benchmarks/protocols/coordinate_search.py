"""Hyper-parameters one at a time: the best value of the first, then of the second …, until nothing gets better."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    params: Params
    value: float  # the objective on the validation part
    seconds: float


@dataclass
class Search:
    """What was tried; `complete` is false where the budget ended it, so that another machine may get further."""

    trials: list[Trial] = field(default_factory=list)
    complete: bool = True

    @property
    def best(self) -> Trial:
        """The first of the best."""
        return max(self.trials, key=lambda trial: trial.value)


def coordinate_search(
    space: Mapping[str, Sequence[Any]], tried: Callable[[Params], float], budget_s: float,
    told: Callable[[Search, float], None] = lambda search, left_s: None,
) -> Search:  # fmt: skip
    """Start at the first value of each field, move along one field at a time, stop when a round brings nothing.

    A trial is begun only if one as long as the last would end within `budget_s`; the first is always made.
    """
    search, begun = Search(), time.monotonic()
    seen: set[tuple] = set()
    for params in _proposals(space, search):
        if (key := tuple(params.items())) in seen:
            continue
        left_s = budget_s - (time.monotonic() - begun)
        if search.trials and search.trials[-1].seconds > left_s:
            search.complete = False
            break
        seen.add(key)
        at = time.monotonic()
        value = tried(params)
        search.trials.append(Trial(params, value, time.monotonic() - at))
        told(search, budget_s - (time.monotonic() - begun))
    return search


def _proposals(space: Mapping[str, Sequence[Any]], search: Search) -> Iterator[Params]:
    """What to try next, given the best so far (it changes while this runs)."""
    yield {name: values[0] for name, values in space.items()}
    before = None
    while before != search.best.params:
        before = search.best.params
        for name, values in space.items():
            for value in values:
                yield {**search.best.params, name: value}
