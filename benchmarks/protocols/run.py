"""One run: tune each model on the validation part, fit it on all of train, and evaluate it on the test part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.protocols.blending import tune_weights
from benchmarks.protocols.coordinate_search import Params, Search
from benchmarks.protocols.datasets import LabeledRequests, Part, ProtocolData
from benchmarks.protocols.models import ModelFactory, select_space
from benchmarks.protocols.progress import Progress
from benchmarks.protocols.protocol import OBJECTIVE, measure
from benchmarks.protocols.resources import read_peak_mib, reset_peak_memory
from benchmarks.protocols.staged_search import staged_search, take_part
from handsell.core.errors import ConfigError
from handsell.core.protocols import Retriever
from handsell.retrieval.models.blend import Blend

MAX_TUNING_REQUESTS = 6_000  # validation requests per trial, drawn by the seed
BLEND_DEPTH = 200


@dataclass(frozen=True, slots=True)
class RunSettings:
    k: int
    budget_s: float = 600.0  # for tuning one model
    tune: bool = True  # False: use the defaults
    test: bool = True  # False: evaluate on the validation part only
    seed: int = 0
    chosen: Mapping[str, Params] = field(default_factory=dict)  # hyper-parameters by model, from an earlier run


@dataclass
class ModelResult:
    """Results of one model; metrics are fractions by their names in `protocol.METRICS`."""

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
class ProtocolRun:
    data: ProtocolData
    settings: RunSettings
    progress: Progress
    tuned: dict[str, Retriever] = field(default_factory=dict)  # parts of blends, fitted without the validation part
    final: dict[str, Retriever] = field(default_factory=dict)  # fitted on all of train
    weighted: set[str] = field(default_factory=set)  # parts of blends whose weights are tuned

    def __post_init__(self) -> None:
        self.factory = ModelFactory(self.data, self.settings.seed)
        requests = self.data.tune.requests
        rng = np.random.default_rng(self.settings.seed)
        if len(requests) > MAX_TUNING_REQUESTS:
            requests = requests.take(np.sort(rng.choice(len(requests), MAX_TUNING_REQUESTS, replace=False)))
        self.validation = Part(self.data.tune.events, requests)
        self.some = take_part(self.validation, rng)  # lines and requests of cheap trials

    def run(self, names: Sequence[str], blends: Sequence[Sequence[str]]) -> list[ModelResult]:
        """Measure single models, then blends; the parts of blends are measured, too."""
        parts = [part for blend in blends for part in blend]
        self.weighted = {part for blend in blends if self._tunes_weights(blend) for part in blend}
        singles = dict.fromkeys([*names, *parts])
        results = [self._guard(name, partial(self._run_single, name=name, keep=name in parts)) for name in singles]
        return results + [self._guard(blend_name(blend), partial(self._run_blend, parts=blend)) for blend in blends]

    def _guard(self, name: str, fill: Callable[[ModelResult], None]) -> ModelResult:
        """Run one model; an exception other than ConfigError becomes the error of its result."""
        result = ModelResult(name)
        try:
            fill(result)
        except ConfigError:
            raise
        except Exception as error:
            result.error = f"{type(error).__name__}: {error}"
            self.progress.log_failure(name, result.error)
        return result

    def _run_single(self, result: ModelResult, name: str, keep: bool) -> None:
        begun = time.monotonic()
        if name in self.settings.chosen:
            result.params = dict(self.settings.chosen[name])
        elif self.settings.tune:
            self._tune(result, name)
        if not result.search and (name in self.weighted or not self.settings.test):
            self.progress.log(f"{name}: fitting for validation, {format_params(result.params)} …")
            model = self.factory.fit(name, result.params, self.validation)
            result.validation = self._measure(model, self.validation.requests, name)
            if keep:
                self.tuned[name] = model
        result.tune_s = time.monotonic() - begun
        if self.settings.test:
            self._test(result, lambda: self.factory.fit(name, result.params, self.data.final))
            if not keep:
                del self.final[name]

    def _tune(self, result: ModelResult, name: str) -> None:
        best = -np.inf

        def evaluate(params: Params) -> float:
            nonlocal best
            model = self.factory.fit(name, params, self.validation)
            metrics = self._measure(model, self.validation.requests, name)
            if metrics[OBJECTIVE] > best:
                best, result.validation = metrics[OBJECTIVE], metrics
                if name in self.weighted:
                    self.tuned[name] = model
            return metrics[OBJECTIVE]

        def evaluate_part(params: Params) -> float:
            model = self.factory.fit(name, params, self.some)
            return self._measure(model, self.some.requests, name)[OBJECTIVE]

        log, space = self.progress.log_trial, select_space(name, self.data)
        self.progress.log(f"{name}: tuning {', '.join(space) or 'nothing'} within {self.settings.budget_s:.0f} s")
        result.search = staged_search(
            space,
            evaluate,
            evaluate_part,
            self.settings.budget_s,
            partial(log, name),
            partial(log, f"{name}, some lines"),
        )  # fmt: skip
        result.params = result.search.best.params

    def _run_blend(self, result: ModelResult, parts: Sequence[str]) -> None:
        begun, settings = time.monotonic(), self.settings
        validated = parts if self._tunes_weights(parts) or not settings.test else ()
        if absent := {p for p in validated if p not in self.tuned} | {
            p for p in parts if settings.test and p not in self.final
        }:
            raise RuntimeError(f"its part {', '.join(sorted(absent))} failed")
        weights = tuple(round(1 / len(parts), 4) for _ in parts)
        if result.model in settings.chosen:
            weights = tuple(settings.chosen[result.model][part] for part in parts)
        if validated:
            weights = self._validate_blend(result, self._build_blend(parts, self.tuned, weights))
        result.params = dict(zip(parts, weights, strict=True))
        result.tune_s = time.monotonic() - begun
        if settings.test:
            self._test(result, lambda: self._build_blend(parts, self.final, weights))

    def _validate_blend(self, result: ModelResult, blend: Blend) -> tuple[float, ...]:
        """Tune the weights if requested, measure the blend on the validation part, and return its weights."""
        if self._tunes_weights(tuple(blend.parts)):
            self.progress.log(f"{result.model}: tuning weights …")
            requests, settings = self.validation.requests, self.settings
            weights, result.search = tune_weights(
                blend, requests, settings.k, self.data.masks_history, settings.budget_s
            )  # fmt: skip
            blend = replace(blend, weights=weights)
            self.progress.log_trial(result.model, result.search, settings.budget_s)
        result.validation = self._measure(blend, self.validation.requests, result.model)
        return blend.weights

    def _tunes_weights(self, parts: Sequence[str]) -> bool:
        return self.settings.tune and blend_name(parts) not in self.settings.chosen

    def _build_blend(self, parts: Sequence[str], models: Mapping[str, Retriever], weights: tuple[float, ...]) -> Blend:
        return Blend({part: models[part] for part in parts}, weights, BLEND_DEPTH, self.data.n_items)

    def _test(self, result: ModelResult, fit: Callable[[], Any]) -> None:
        self.progress.log(f"{result.model}: fitting on all of train, {format_params(result.params)} …")
        reset_peak_memory()
        begun = time.monotonic()
        model = self.final[result.model] = fit()
        result.fit_s = time.monotonic() - begun
        begun = time.monotonic()
        result.metrics = self._measure(model, self.data.final.requests, result.model)
        result.users_per_s = len(self.data.final.requests) / (time.monotonic() - begun)
        result.peak_mib = read_peak_mib()
        self.progress.log_test(result.model, result.fit_s, result.users_per_s)

    def _measure(self, model: Retriever, requests: LabeledRequests, name: str) -> dict[str, float]:
        with self.progress.show_bar(name, len(requests)) as tick:
            return measure(model, requests, self.settings.k, self.data.n_items, self.data.masks_history, tick)


def blend_name(parts: Sequence[str]) -> str:
    return f"blend({','.join(parts)})"


def format_params(params: Params) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items()) or "defaults"
