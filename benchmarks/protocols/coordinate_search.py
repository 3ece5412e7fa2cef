"""Coordinate search: optimize one hyper-parameter after another until a round brings no improvement."""

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
    """Trials of a search; `complete` is False if the time budget ended it, so that a faster machine may find more."""

    trials: list[Trial] = field(default_factory=list)
    complete: bool = True
    on_part: list[Trial] = field(default_factory=list)  # trials on a part of the data, which do not decide

    @property
    def best(self) -> Trial:
        """The best trial; of equal ones, the first."""
        return max(self.trials, key=lambda trial: trial.value)


def coordinate_search(
    space: Mapping[str, Sequence[Any]], evaluate: Callable[[Params], float], budget_s: float,
    on_trial: Callable[[Search, float], None] = lambda search, left_s: None,
    starts: Sequence[Params] = (), admits: Callable[[Params], bool] = lambda params: True,
    earlier: Sequence[Trial] = (),
) -> Search:  # fmt: skip
    """Maximize `evaluate`, changing one field at a time of the best of `starts` and of the first value of each field.

    A trial starts only if one as long as the last would end within `budget_s`; those of the start always run.
    Parameters that `admits` rejects are not tried, and those of `earlier` trials not again.
    """
    search, begun = Search(list(earlier)), time.monotonic()
    seen = {tuple(trial.params.items()) for trial in earlier}
    first = [{name: values[0] for name, values in space.items()}, *starts]
    for params in _propose(space, first, search):
        if (key := tuple(params.items())) in seen or not admits(params):
            continue
        left_s = budget_s - (time.monotonic() - begun)
        if len(search.trials) >= len(first) and search.trials[-1].seconds > left_s:
            search.complete = False
            break
        seen.add(key)
        at = time.monotonic()
        value = evaluate(params)
        search.trials.append(Trial(params, value, time.monotonic() - at))
        on_trial(search, budget_s - (time.monotonic() - begun))
    return search


def _propose(space: Mapping[str, Sequence[Any]], starts: Sequence[Params], search: Search) -> Iterator[Params]:
    """Yield the next parameters to try; `search` changes between them."""
    yield from starts
    before = None
    while before != search.best.params:
        before = search.best.params
        for name, values in space.items():
            for value in values:
                yield {**search.best.params, name: value}
