"""A trial of tuning: one source fitted with one combination of hyper-parameters, measured on validation requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import HandsellError, TrainingError
from handsell.core.paths import Layout
from handsell.core.protocols import Retriever
from handsell.data.interactions import Interactions
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import gains, ndcg
from handsell.evaluation.replay import MASK_CELLS
from handsell.jobs.train.retrievers import read_interactions
from handsell.jobs.train.scoring import Judged, judged_requests
from handsell.retrieval import registry
from handsell.retrieval.content_vectors import Content

Params = dict[str, Any]

WINDOW = "validation"


@dataclass(frozen=True, slots=True)
class Trial:
    """One combination: its mean NDCG@10, or why it has none."""

    params: Params
    value: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What all trials of a source share: where its data lies, not the data."""

    source: str
    config: Config
    run: Path
    content: Path


@dataclass(frozen=True, slots=True)
class Material:
    """What a trial is fitted on and measured by."""

    events: Interactions
    content: Content
    judged: Judged
    eligibility: Eligibility

    @classmethod
    def of(cls, task: Task) -> Material:
        """Reads it from the run's folder; raises TrainingError where nothing is relevant to any request."""
        config, options = task.config, task.config.tuning
        snapshot = Snapshot.load(Layout(config.state).snapshot)
        judged = judged_requests(config, task.run, WINDOW, snapshot)
        count = len(judged.requests)
        if not count:
            raise TrainingError(
                f"tuning: no request of the {WINDOW} window has an eligible item that was liked: lengthen "
                "split.validation_days (or split.validation_k), or empty tuning.sources"
            )
        if count > options.max_requests:
            rows = np.random.default_rng(options.seed).choice(count, options.max_requests, replace=False)
            judged = Judged(judged.requests.take(np.sort(rows)), judged.relevant.take(np.sort(rows)))
        eligibility = Eligibility.of(snapshot, config)
        return cls(read_interactions(config, task.run / "fit"), Content.load(task.content), judged, eligibility)


def measured(task: Task, material: Material, params: Params) -> Trial:
    """Fit and answer; a combination that does not suit the source or the data is a failed trial."""
    begun, value, error = time.monotonic(), None, None
    try:
        config = with_params(task.config, task.source, params)
        model = registry.fit(task.source, material.events, config.retrieval, material.content)
        value = mean_ndcg(model, material.judged, material.eligibility)
    except (HandsellError, ValueError) as caught:
        error = " ".join(str(caught).split())
    return Trial(dict(params), value, round(time.monotonic() - begun, 2), error)


def mean_ndcg(model: Retriever, judged: Judged, eligibility: Eligibility, k: int = 10) -> float:
    """Mean NDCG@k of the model's own top k among what each request may be shown."""
    items = max(len(eligibility.snapshot), 1)
    step = max(1, min(256, MASK_CELLS // items))
    scores = []
    for start in range(0, len(judged.requests), step):
        rows = slice(start, start + step)
        asked, relevant = judged.requests.take(rows), judged.relevant.take(rows)
        found, _ = model.retrieve(asked, min(k, items), eligibility.mask(asked))
        scores.append(ndcg(gains(found, relevant), relevant, k))
    return float(np.concatenate(scores).mean())


def with_params(config: Config, source: str, params: Params) -> Config:
    """The config with other values in a source's section; raises ValueError where the section does not allow them."""
    section = config.retrieval[source]
    changed = type(section).model_validate({**section.model_dump(), **params})
    return config.model_copy(update={"retrieval": config.retrieval.with_sections({source: changed})})
