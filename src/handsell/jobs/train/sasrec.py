"""SASRec on Ray: trained by Ray Train, with the state of an interrupted course kept whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray.train

from handsell.config import Config
from handsell.jobs.train import neural
from handsell.jobs.train.windows import Sizes
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.models.sasrec import SASRec, SASRecConfig, build_sasrec


def fit_sasrec_on_ray(config: Config, interactions: Path, content: Path, sizes: Sizes, out: Path) -> float:
    """As `neural.fit_on_ray` says."""
    return neural.fit_on_ray("sasrec", train_worker, finished, config, interactions, content, sizes, out)


def train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs: its users in, gradients shared, and a checkpoint after each epoch from worker 0."""
    from handsell.retrieval.neural import sasrec_training as training
    from handsell.retrieval.neural.training import read_weights, reduce_over_workers, use_reduced_precision

    config = SASRecConfig(**loop["config"])
    context = ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    rows = training.SequenceRows(neural.read_share(loop["parts"], loop["sizes"], worker, workers), config)
    model = training.build_transformer(loop["sizes"][1], Content.load(Path(loop["content"])), config)
    trained = reduce_over_workers(rows.trained.astype(np.int64), "max") > 0
    steps = neural.steps_together("sasrec", rows.steps, workers)

    def leave(line: str, metrics: dict[str, float], state: dict[str, np.ndarray]) -> None:
        neural.report(worker, line, metrics, lambda: {**state, "trained": trained.astype(np.uint8)})

    if steps == 0:
        leave("sasrec: nothing to learn from", {}, {f"model.{n}": w for n, w in read_weights(model).items()})
        return
    course = training.Training(model, rows, wrap=neural.data_parallel, trained=trained, steps=steps, worker=worker)
    before = neural.last_state()
    if before:
        course.restore(before)

    def report(epoch: training.Epoch) -> None:
        leave(epoch.format_line(config), epoch.metrics, course.state())

    with use_reduced_precision():
        course.run(report)


def finished(state: Path, config: Config, content: Path) -> SASRec:
    from safetensors.numpy import load_file

    kept = load_file(state)
    best = "best." if any(name.startswith("best.") for name in kept) else "model."
    weights = {name.removeprefix(best): w for name, w in kept.items() if name.startswith(best)}
    cosine = config.retrieval["sasrec"].temperature > 0
    return build_sasrec(weights, Content.load(content), kept["trained"] > 0, cosine)
