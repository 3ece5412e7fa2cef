"""SASRec under Ray Train: an interrupted training resumes with its optimizer and its best weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from handsell.config import Config
from handsell.jobs.train.distributed.neural import TrainWorker, fit_on_workers
from handsell.jobs.train.windows import CatalogSizes
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.models.sasrec import SASRec, SASRecConfig, build_sasrec
from handsell.retrieval.neural import sasrec_training as training
from handsell.retrieval.neural.pair_vectors import set_initial_vectors
from handsell.retrieval.neural.training import read_weights, use_reduced_precision


def fit(config: Config, interactions: Path, content: Path, sizes: CatalogSizes, out: Path) -> None:
    """Fit as `neural.fit_on_workers` describes."""
    fit_on_workers("sasrec", train_worker, build_model, config, interactions, content, sizes, out)


def train_worker(arguments: dict[str, Any]) -> None:
    """Train on one worker's users, with shared gradients and a checkpoint after each epoch."""
    config, worker = SASRecConfig(**arguments["config"]), TrainWorker.current(arguments)
    rows = training.SequenceRows(worker.read_interactions(), config)
    model = training.build_transformer(worker.n_items, worker.load_content(), config)
    trained = worker.is_true_on_any_worker(rows.trained)
    steps = worker.agree_on_steps(rows.steps)

    def report(line: str, metrics: dict[str, float], state: dict[str, np.ndarray]) -> None:
        worker.report(line, metrics, lambda: {**state, "trained": trained.astype(np.uint8)})

    if steps == 0:
        report("sasrec: nothing to learn from", {}, {f"model.{n}": w for n, w in read_weights(model).items()})
        return
    set_initial_vectors(model.embedding, rows)
    course = training.Training(
        model,
        rows,
        wrap=worker.share_gradients,
        trained=trained,
        steps=steps,
        worker=worker.rank,
        device=worker.device,
    )
    last = worker.load_last_state()
    if last:
        course.restore(last)
    with use_reduced_precision():
        course.run(lambda epoch: report(epoch.format_line(config), epoch.metrics, course.get_state()))


def build_model(state: Path, config: Config, content: Path) -> SASRec:
    """Build the retriever from the best weights of the last state, or its last ones where none were validated."""
    arrays = load_file(state)
    best = "best." if any(name.startswith("best.") for name in arrays) else "model."
    weights = {name.removeprefix(best): w for name, w in arrays.items() if name.startswith(best)}
    cosine = config.retrieval["sasrec"].temperature > 0
    return build_sasrec(weights, Content.load(content), arrays["trained"] > 0, cosine)
