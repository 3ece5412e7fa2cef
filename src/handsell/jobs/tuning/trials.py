"""A trial of tuning: one source fitted with one combination of hyper-parameters, scored on validation requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.data.interactions import Interactions
from handsell.jobs.train.retrievers import read_interactions
from handsell.jobs.tuning.validation_window import ValidationWindow
from handsell.retrieval import registry
from handsell.retrieval.content_vectors import Content

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """One combination with its mean NDCG@10, or with the error that prevented it."""

    params: Params
    value: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TrialTask:
    """The common inputs of all trials of a source: paths of the data, not the data."""

    source: str
    config: Config
    run: Path
    content: Path


@dataclass(frozen=True, slots=True)
class TrialData:
    """The data that trials are fitted and scored on."""

    events: Interactions
    content: Content
    window: ValidationWindow

    @classmethod
    def load(cls, task: TrialTask) -> TrialData:
        """Read it from the run's folder; raise TrainingError if no request has a relevant item."""
        config, options = task.config, task.config.tuning
        window = ValidationWindow.load(config, task.run, "empty tuning.sources")
        count = len(window.evaluation)
        if count > options.max_requests:
            rows = np.random.default_rng(options.seed).choice(count, options.max_requests, replace=False)
            window = ValidationWindow(window.evaluation.take(np.sort(rows)), window.eligibility)
        return cls(read_interactions(config, task.run / "fit"), Content.load(task.content), window)


def run_trial(task: TrialTask, data: TrialData, params: Params) -> Trial:
    """Fit and score one combination; one that does not suit the source or the data gives a failed trial."""
    begun, value, error = time.monotonic(), None, None
    try:
        config = with_params(task.config, task.source, params)
        model = registry.fit(task.source, data.events, config.retrieval, data.content)
        value = data.window.model_ndcg(model)
    except (HandsellError, ValueError) as caught:
        error = " ".join(str(caught).split())
    return Trial(dict(params), value, round(time.monotonic() - begun, 2), error)


def with_params(config: Config, source: str, params: Params) -> Config:
    """Return the config with other values in a source's section; raise ValueError for values it does not allow."""
    section = config.retrieval[source]
    changed = type(section).model_validate({**section.model_dump(), **params})
    return config.model_copy(update={"retrieval": config.retrieval.with_sections({source: changed})})
