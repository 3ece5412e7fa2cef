"""Hyper-parameters of sources, searched by Ray Tune on the validation window before anything is fitted for good.

A trial fits one source on the retrieval window, as the twin's are, and is worth the mean NDCG@10 of its own top ten
among eligible items. The validation window comes after the ranker's, so a trial answers for days that it knows
nothing of; the test window has no part in it. The first combination is the config's own, so that what is chosen is
never worse on validation than what was there; the second is where the source's SEARCH begins; the others are drawn
from SEARCH by the seed, none twice. Of equal values the earlier combination is kept.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from handsell.config import Config
from handsell.core.errors import ConfigError, TrainingError
from handsell.jobs.cluster import spread
from handsell.jobs.progress import report_update
from handsell.jobs.train.retrievers import save_content
from handsell.jobs.tuning.trials import WINDOW, Material, Params, Task, Trial, measured, with_params
from handsell.retrieval.config import retrievers

Space = Mapping[str, Sequence[Any]]

OBJECTIVE = "ndcg@10"


@dataclass(frozen=True, slots=True)
class TunedSource:
    """What the search for one source found. `trials` stand in the order of the combinations, the config's own first."""

    source: str
    trials: tuple[Trial, ...]
    combinations: int  # that there were to try
    requests: int  # that each trial answered
    seconds: float

    @property
    def best(self) -> Trial:
        """The first of the best; raises TrainingError where every trial failed."""
        good = [trial for trial in self.trials if trial.value is not None]
        if not good:
            raise TrainingError(
                f"tuning of {self.source}: every one of {len(self.trials)} trials failed, the first with: "
                f"{self.trials[0].error}. Correct retrieval.{self.source}, or take it out of tuning.sources"
            )
        return max(good, key=lambda trial: trial.value or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """For the report; `configured` is the value of the config's own parameters, null where they failed."""
        return {
            "objective": f"{OBJECTIVE} on the {WINDOW} window",
            "requests": self.requests,
            "combinations": self.combinations,
            "seconds": self.seconds,
            "configured": self.trials[0].value,
            "configured_params": self.trials[0].params,
            "best": self.best.value,
            "params": self.best.params,
            "trials": [asdict(trial) for trial in self.trials],
        }

    def __str__(self) -> str:
        best, first = self.best, self.trials[0]
        failed = sum(trial.value is None for trial in self.trials)
        tried = f"{len(self.trials)} of {self.combinations} tried" + (f", {failed} failed" if failed else "")
        if best is first:
            return f"{self.source} stays as configured at {best.value:.4f} ({tried})"
        before = "failure" if first.value is None else f"{first.value:.4f}"
        return f"{self.source} {before} → {best.value:.4f} with {told(best.params)} ({tried})"


def spaces(config: Config) -> dict[str, Space]:
    """Source → what may be tried; raises ConfigError for one whose file has no SEARCH."""
    found: dict[str, Space] = {name: retrievers()[name].search_space() for name in config.tuning.sources}
    if none := [name for name, space in found.items() if not space]:
        able = [name for name in config.retrieval.enabled if retrievers()[name].search_space()]
        raise ConfigError(
            f"tuning.sources has {', '.join(none)}, which registers no values to search: expected some of "
            f"{', '.join(able) or 'none of the enabled sources'}; take it out of the list"
        )
    return found


def tune_sources(config: Config, run: Path) -> list[TunedSource]:
    """Search for every source of config.tuning, one after the other, on the connected cluster.

    Needs run/fit and run/rows/validation.parquet. Raises TrainingError where every trial of a source failed.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="tuning-", dir=run) as folder:
        content = Path(folder).resolve() / "content"
        spread(save_content, [(config, run / "fit", content)], wait_s=config.jobs.wait_for_resources_s)
        for name, space in spaces(config).items():
            one = _tune(Task(name, config, run.resolve(), content), space, Path(folder).resolve())
            one.best  # noqa: B018 - raises where there is none
            found.append(one)
    return found


def with_best(config: Config, found: Sequence[TunedSource]) -> Config:
    """The config with what was found in the sections of the sources."""
    for one in found:
        config = with_params(config, one.source, one.best.params)
    return config


def combinations(space: Space, configured: Params, most: int, seed: int) -> list[Params]:
    """The config's own, the first of each field, then others by the seed; none twice, `most` at most."""
    shape = [len(values) for values in space.values()]
    total = math.prod(shape)
    drawn = np.random.default_rng(seed).choice(total, size=min(total, most), replace=False)
    places = np.stack(np.unravel_index([0, *drawn], shape), axis=1)  # (N, fields)
    rest = [{n: values[i] for (n, values), i in zip(space.items(), row, strict=True)} for row in places]
    unique = {tuple(params.items()): params for params in [configured, *rest]}
    return list(unique.values())[:most]


def _first(task: Task, params: Params) -> tuple[Trial, int]:
    """A Ray task: the trial, and how many requests it answered."""
    material = Material.of(task)
    return measured(task, material, params), len(material.judged.requests)


def _tune(task: Task, space: Space, storage: Path) -> TunedSource:
    """The config's own combination as a plain task, which is always made, then Ray Tune until the budget ends."""
    options, begun = task.config.tuning, time.monotonic()
    section = task.config.retrieval[task.source]
    configured = {name: getattr(section, name) for name in space}
    every = combinations(space, configured, options.trials, options.seed)
    in_grid = all(configured[name] in values for name, values in space.items())
    told_of = Told(task.source, len(every), begun + options.budget_s)
    wait_s = task.config.jobs.wait_for_resources_s
    first, requests = spread(_first, [(task, every[0])], wait_s=wait_s)[0]
    told_of.line(first)
    trials, left_s = [first], begun + options.budget_s - time.monotonic()
    if len(every) > 1 and left_s > first.seconds:
        trials += _searched(task, every[1:], left_s, told_of, storage)
    total = math.prod(len(values) for values in space.values()) + (not in_grid)
    return TunedSource(task.source, tuple(trials), total, requests, round(time.monotonic() - begun, 2))


def _searched(task: Task, points: list[Params], budget_s: float, told_of: Told, storage: Path) -> list[Trial]:
    """What Ray Tune finished of the points within the budget, in their order; what was under way is dropped."""
    _quiet()
    options = task.config.tuning
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(Bench, task=task), {"CPU": 1}),
        param_space={name: tune.choice([point[name] for point in points]) for name in points[0]},
        tune_config=tune.TuneConfig(
            search_alg=BasicVariantGenerator(points_to_evaluate=list(points), max_concurrent=options.concurrent),
            num_samples=len(points),
            time_budget_s=budget_s,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=task.source,
            storage_path=str(storage),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial leaves a number, no model
            callbacks=[told_of],
            verbose=0,
        ),
    )
    results = tuner.fit()
    done = [_trial_of(r.config or {}, r.metrics or {}, r.error) for r in map(results.__getitem__, range(len(results)))]
    found = {_key(trial.params): trial for trial in done if trial is not None}
    return [found[_key(point)] for point in points if _key(point) in found]


def _quiet() -> None:
    """Ray Tune's boxes, tables and files are for notebooks; `Told` and the report say what happened."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # else a box is printed whatever `verbose` says
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it warns of each trial that left no such file


def _key(params: Params) -> tuple:
    return tuple(sorted(params.items()))


def _trial_of(params: Params, metrics: Mapping[str, Any], error: BaseException | None) -> Trial | None:
    """None where the budget ended it."""
    if error is not None:
        return Trial(dict(params), None, 0.0, str(error).strip().splitlines()[-1])
    if "seconds" not in metrics:
        return None
    return Trial(dict(params), metrics["value"], metrics["seconds"], metrics["error"])


class Bench(tune.Trainable):
    """A Ray Tune actor: reads the data once, then fits and measures one combination after the other."""

    def setup(self, config: Params, **shared: Task) -> None:
        self._task = shared["task"]
        self._material = Material.of(self._task)

    def step(self) -> dict[str, Any]:
        trial = measured(self._task, self._material, self.config)
        return {"value": trial.value, "seconds": trial.seconds, "error": trial.error, "done": True}

    def reset_config(self, new_config: Params) -> bool:
        return True  # the data stays


class Told(tune.Callback):
    """One line for each trial that ends, in place of Ray Tune's own tables."""

    def __init__(self, source: str, most: int, until: float) -> None:
        self._source, self._most, self._until, self._done = source, most, until, 0

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        if (ended := _trial_of(trial.config, trial.last_result or {}, None)) is not None:
            self.line(ended)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.line(Trial(dict(trial.config), None, 0.0, "the trial's process ended in an error"))

    def line(self, trial: Trial) -> None:
        self._done += 1
        result = f"failed: {trial.error}" if trial.value is None else f"{OBJECTIVE} {trial.value:.4f}"
        left_s = max(self._until - time.monotonic(), 0.0)
        report_update(
            f"{self._source}: trial {self._done} of at most {self._most}: {told(trial.params)}: {result} "
            f"({trial.seconds:.1f} s, {left_s:.0f} s left)"
        )


def told(params: Params) -> str:
    """The parameters in a line."""
    return ", ".join(f"{n} {v:g}" if isinstance(v, int | float) else f"{n} {v}" for n, v in params.items())
