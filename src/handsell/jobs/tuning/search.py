"""Search for hyper-parameters of sources by Ray Tune, on the validation window, before the holdout model is fitted.

A trial fits one source on the retrieval window and scores the NDCG@10 of its own top ten among eligible items. The
validation window comes after the ranker's; the test window is not used. The first combination is the config's, so
the choice is never worse on validation; the second has the first value of each field of the plug-in's `search`; the
others are drawn by the seed without repetition. Of equal values the earlier combination wins.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search.basic_variant import BasicVariantGenerator

from handsell.config import Config
from handsell.jobs.cluster import run_tasks
from handsell.jobs.progress import report_update
from handsell.jobs.train.retrievers import fit_content
from handsell.jobs.tuning.trials import Params, Trial, TrialData, TrialTask, run_trial
from handsell.jobs.tuning.tuned_source import OBJECTIVE, Space, TunedSource, format_params, load_search_spaces


def tune_sources(config: Config, run: Path) -> list[TunedSource]:
    """Search for each source of config.tuning in turn, on the Ray cluster of this process.

    Needs fit/ and rows/validation.parquet in the folder `run`. Raises TrainingError if every trial of a source failed.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="tuning-", dir=run) as folder:
        content = Path(folder).absolute() / "content"
        run_tasks(fit_content, [(config, run / "fit", content)], wait_s=config.jobs.wait_for_resources_s)
        for name, space in load_search_spaces(config).items():
            one = _tune_source(TrialTask(name, config, run.absolute(), content), space, Path(folder).absolute())
            one.best  # noqa: B018 - raises if all failed
            found.append(one)
    return found


def draw_combinations(space: Space, configured: Params, most: int, seed: int) -> list[Params]:
    """Return at most `most`: the config's own, the first value of each field, then others drawn by the seed."""
    shape = [len(values) for values in space.values()]
    total = math.prod(shape)
    drawn = np.random.default_rng(seed).choice(total, size=min(total, most), replace=False)
    places = np.stack(np.unravel_index([0, *drawn], shape), axis=1)  # (N, fields)
    rest = [{n: values[i] for (n, values), i in zip(space.items(), row, strict=True)} for row in places]
    unique = {tuple(params.items()): params for params in [configured, *rest]}
    return list(unique.values())[:most]


def _run_first_trial(task: TrialTask, params: Params) -> tuple[Trial, int]:
    """Run a trial; return it with its number of requests. A Ray task."""
    data = TrialData.load(task)
    return run_trial(task, data, params), len(data.window.evaluation)


def _tune_source(task: TrialTask, space: Space, storage: Path) -> TunedSource:
    """Run the config's own combination, whatever the budget, then others by Ray Tune until the budget ends."""
    options, begun = task.config.tuning, time.monotonic()
    section = task.config.retrieval[task.source]
    configured = {name: getattr(section, name) for name in space}
    every = draw_combinations(space, configured, options.trials, options.seed)
    in_grid = all(configured[name] in values for name, values in space.items())
    reporter = TrialReporter(task.source, len(every), begun + options.budget_s)
    wait_s = task.config.jobs.wait_for_resources_s
    first, requests = run_tasks(_run_first_trial, [(task, every[0])], wait_s=wait_s)[0]
    reporter.report_trial(first)
    trials, left_s = [first], begun + options.budget_s - time.monotonic()
    if len(every) > 1 and left_s > first.seconds:
        trials += _run_trials(task, every[1:], left_s, reporter, storage)
    total = math.prod(len(values) for values in space.values()) + (not in_grid)
    return TunedSource(task.source, tuple(trials), total, requests, round(time.monotonic() - begun, 2))


def _run_trials(
    task: TrialTask, points: list[Params], budget_s: float, reporter: TrialReporter, storage: Path
) -> list[Trial]:
    """Return the trials that Ray Tune finishes within the budget, in the order of the points."""
    _silence_tune()
    options = task.config.tuning
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialActor, task=task), {"CPU": 1}),
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
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial keeps a number, no model
            callbacks=[reporter],
            verbose=0,
        ),
    )
    results = tuner.fit()
    done = [
        _parse_result(r.config or {}, r.metrics or {}, r.error) for r in map(results.__getitem__, range(len(results)))
    ]
    found = {_key(trial.params): trial for trial in done if trial is not None}
    return [found[_key(point)] for point in points if _key(point) in found]


def _silence_tune() -> None:
    """Switch off Ray Tune's own output; TrialReporter and the report replace it."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # otherwise a box is printed despite `verbose`
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it warns of each trial without a file


def _key(params: Params) -> tuple:
    return tuple(sorted(params.items()))


def _parse_result(params: Params, metrics: Mapping[str, Any], error: BaseException | None) -> Trial | None:
    """Return the trial of a Ray Tune result; None if the budget ended it."""
    if error is not None:
        return Trial(dict(params), None, 0.0, str(error).strip().splitlines()[-1])
    if "seconds" not in metrics:
        return None
    return Trial(dict(params), metrics["value"], metrics["seconds"], metrics["error"])


class TrialActor(tune.Trainable):
    """A Ray Tune actor that reads the data once and runs one trial after the other."""

    def setup(self, config: Params, **shared: TrialTask) -> None:
        self._task = shared["task"]
        self._data = TrialData.load(self._task)

    def step(self) -> dict[str, Any]:
        trial = run_trial(self._task, self._data, self.config)
        return {"value": trial.value, "seconds": trial.seconds, "error": trial.error, "done": True}

    def reset_config(self, new_config: Params) -> bool:
        return True  # the actor is reused with its data


class TrialReporter(tune.Callback):
    """Reports one line per trial, in place of Ray Tune's own tables."""

    def __init__(self, source: str, most: int, until: float) -> None:
        self._source, self._most, self._until, self._done = source, most, until, 0

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        if (ended := _parse_result(trial.config, trial.last_result or {}, None)) is not None:
            self.report_trial(ended)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self.report_trial(Trial(dict(trial.config), None, 0.0, "the trial's process ended in an error"))

    def report_trial(self, trial: Trial) -> None:
        self._done += 1
        result = f"failed: {trial.error}" if trial.value is None else f"{OBJECTIVE} {trial.value:.4f}"
        left_s = max(self._until - time.monotonic(), 0.0)
        report_update(
            f"{self._source}: trial {self._done} of at most {self._most}: {format_params(trial.params)}: {result} "
            f"({trial.seconds:.1f} s, {left_s:.0f} s left)"
        )
