"""One run: every model is tuned on the validation part, fitted on all of train, and asked the test's questions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.protocols.blending import tuned_weights
from benchmarks.protocols.coordinate_search import Params, Search, coordinate_search
from benchmarks.protocols.datasets import Part, Questions, Yardstick
from benchmarks.protocols.models import ModelFactory
from benchmarks.protocols.progress import Progress
from benchmarks.protocols.protocol import OBJECTIVE, measure
from benchmarks.protocols.resources import peak_mib, restart_peak
from handsell.core.errors import ConfigError
from handsell.core.protocols import Retriever
from handsell.retrieval.config import retrievers
from handsell.retrieval.models.blend import Blend

TUNE_QUESTIONS = 6_000  # validation requests that a trial answers, drawn by the seed
BLEND_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Settings:
    k: int
    budget_s: float = 600.0  # for tuning one model
    tune: bool = True  # False takes the defaults
    test: bool = True  # False looks at the validation part only
    seed: int = 0
    given: Mapping[str, Params] = field(default_factory=dict)  # hyper-parameters by model, from an earlier run


@dataclass
class Row:
    """What is told of one model; metrics are fractions by their names in `protocol.METRICS`."""

    model: str
    params: Params = field(default_factory=dict)
    search: Search | None = None
    validation: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tune_s: float = 0.0
    fit_s: float = 0.0
    users_per_s: float = 0.0
    peak_mib: float = 0.0
    error: str = ""


@dataclass
class Run:
    yard: Yardstick
    settings: Settings
    progress: Progress
    kept: dict[str, Retriever] = field(default_factory=dict)  # fitted on the validation's train part, for blends
    final: dict[str, Retriever] = field(default_factory=dict)
    weighed: set[str] = field(default_factory=set)  # parts of blends whose weights are to be found

    def __post_init__(self) -> None:
        self.workshop = ModelFactory(self.yard, self.settings.seed)
        questions = self.yard.tune.questions
        rng = np.random.default_rng(self.settings.seed)
        if len(questions) > TUNE_QUESTIONS:
            questions = questions.take(np.sort(rng.choice(len(questions), TUNE_QUESTIONS, replace=False)))
        self.tune_part = Part(self.yard.tune.events, questions)

    def __call__(self, names: Sequence[str], blends: Sequence[Sequence[str]]) -> list[Row]:
        parts = [part for blend in blends for part in blend]
        self.weighed = {part for blend in blends if self._needs_weights(blend) for part in blend}
        singles = dict.fromkeys([*names, *parts])
        rows = [self._guarded(name, partial(self._single, name=name, keep=name in parts)) for name in singles]
        return rows + [self._guarded(title(blend), partial(self._blend, parts=blend)) for blend in blends]

    def _guarded(self, name: str, act: Callable[[Row], None]) -> Row:
        """One model's failure is told in its row and does not cost the others theirs."""
        row = Row(name)
        try:
            act(row)
        except ConfigError:
            raise
        except Exception as error:
            row.error = f"{type(error).__name__}: {error}"
            self.progress.failed(name, row.error)
        return row

    def _single(self, row: Row, name: str, keep: bool) -> None:
        begun = time.monotonic()
        if name in self.settings.given:
            row.params = dict(self.settings.given[name])
        elif self.settings.tune:
            self._tune(row, name)
        if not row.search and (name in self.weighed or not self.settings.test):
            self.progress.say(f"{name}: fitting for validation, {told(row.params)} …")
            model = self.workshop.fit(name, row.params, self.tune_part)
            row.validation = self._measured(model, self.tune_part.questions, name)
            if keep:
                self.kept[name] = model
        row.tune_s = time.monotonic() - begun
        if self.settings.test:
            self._test(row, lambda: self.workshop.fit(name, row.params, self.yard.final))
            if not keep:
                del self.final[name]

    def _tune(self, row: Row, name: str) -> None:
        best = -np.inf

        def tried(params: Params) -> float:
            nonlocal best
            model = self.workshop.fit(name, params, self.tune_part)
            found = self._measured(model, self.tune_part.questions, name)
            if found[OBJECTIVE] > best:
                best, row.validation = found[OBJECTIVE], found
                if name in self.weighed:
                    self.kept[name] = model
            return found[OBJECTIVE]

        space = retrievers()[name].search_space()
        self.progress.say(f"{name}: tuning {', '.join(space) or 'nothing'} within {self.settings.budget_s:.0f} s")
        row.search = coordinate_search(
            space, tried, self.settings.budget_s, lambda search, left: self.progress.trial(name, search, left)
        )
        row.params = row.search.best.params

    def _blend(self, row: Row, parts: Sequence[str]) -> None:
        begun, settings = time.monotonic(), self.settings
        validated = parts if self._needs_weights(parts) or not settings.test else ()
        if absent := {p for p in validated if p not in self.kept} | {
            p for p in parts if settings.test and p not in self.final
        }:
            raise RuntimeError(f"its part {', '.join(sorted(absent))} failed")
        weights = tuple(round(1 / len(parts), 4) for _ in parts)
        if row.model in settings.given:
            weights = tuple(settings.given[row.model][part] for part in parts)
        if validated:
            weights = self._weighed(row, self._blended(parts, self.kept, weights))
        row.params = dict(zip(parts, weights, strict=True))
        row.tune_s = time.monotonic() - begun
        if settings.test:
            self._test(row, lambda: self._blended(parts, self.final, weights))

    def _weighed(self, row: Row, blend: Blend) -> tuple[float, ...]:
        """The blend's weights, found on the validation part if they are to be found, and its figures there."""
        if self._needs_weights(tuple(blend.parts)):
            self.progress.say(f"{row.model}: tuning weights …")
            questions, settings = self.tune_part.questions, self.settings
            weights, row.search = tuned_weights(
                blend, questions, settings.k, self.yard.masks_history, settings.budget_s
            )
            blend = replace(blend, weights=weights)
            self.progress.trial(row.model, row.search, settings.budget_s)
        row.validation = self._measured(blend, self.tune_part.questions, row.model)
        return blend.weights

    def _needs_weights(self, parts: Sequence[str]) -> bool:
        return self.settings.tune and title(parts) not in self.settings.given

    def _blended(self, parts: Sequence[str], models: Mapping[str, Retriever], weights: tuple[float, ...]) -> Blend:
        return Blend({part: models[part] for part in parts}, weights, BLEND_DEPTH, self.yard.n_items)

    def _test(self, row: Row, fit: Callable[[], Any]) -> None:
        self.progress.say(f"{row.model}: fitting on all of train, {told(row.params)} …")
        restart_peak()
        begun = time.monotonic()
        model = self.final[row.model] = fit()
        row.fit_s = time.monotonic() - begun
        begun = time.monotonic()
        row.metrics = self._measured(model, self.yard.final.questions, row.model)
        row.users_per_s = len(self.yard.final.questions) / (time.monotonic() - begun)
        row.peak_mib = peak_mib()
        self.progress.tested(row.model, row.fit_s, row.users_per_s)

    def _measured(self, model: Retriever, questions: Questions, name: str) -> dict[str, float]:
        with self.progress.bar(name, len(questions)) as tick:
            return measure(model, questions, self.settings.k, self.yard.n_items, self.yard.masks_history, tick)


def title(blend: Sequence[str]) -> str:
    return f"blend({','.join(blend)})"


def told(params: Params) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items()) or "defaults"
