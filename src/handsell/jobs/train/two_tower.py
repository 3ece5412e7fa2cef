"""The two-tower model on Ray: trained by Ray Train, item vectors by Ray Data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray.data
import ray.train

from handsell.config import Config
from handsell.jobs.train import neural
from handsell.jobs.train.windows import Sizes
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.models.two_tower import (
    TwoTower,
    TwoTowerConfig,
    assemble_two_tower,
    build_input_vectors,
    build_item_vectors,
)

ITEMS_A_BLOCK = 50_000


def fit_two_tower_on_ray(config: Config, interactions: Path, content: Path, sizes: Sizes, out: Path) -> float:
    """As `neural.fit_on_ray` says."""
    return neural.fit_on_ray("two_tower", train_worker, finished, config, interactions, content, sizes, out)


def finished(state: Path, config: Config, content: Path) -> TwoTower:
    return _with_item_vectors(state, content)


def train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs: its users in, gradients shared, and a checkpoint after each epoch from worker 0."""
    from handsell.retrieval.neural import two_tower_training as training
    from handsell.retrieval.neural.training import load_weights, read_weights, reduce_over_workers

    config = TwoTowerConfig(**loop["config"])
    context = ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    rows = training.TwoTowerRows(neural.read_share(loop["parts"], loop["sizes"], worker, workers), config)
    model = training.build_towers(loop["sizes"][1], Content.load(Path(loop["content"])), config)
    trained = reduce_over_workers(rows.trained.astype(np.int64), "max").astype(np.uint8)
    steps = neural.steps_together("two_tower", training.count_steps(rows, config), workers)

    def report(epoch: int, loss: float, seconds_left: float) -> None:
        line = training.format_progress(config, epoch, loss, seconds_left)
        metrics = {"epoch": epoch, "loss": loss, "seconds_left": seconds_left}
        neural.report(
            worker, line, metrics, lambda: {**read_weights(model), "trained": trained, "epoch": np.array([epoch])}
        )

    before = neural.last_state()
    if before:
        load_weights(model, before)
    first = int(before["epoch"][0]) if before else 0
    if steps == 0 or first >= config.epochs:
        report(config.epochs, 0.0, 0.0)
        return
    training.train(
        model,
        rows,
        config,
        wrap=neural.data_parallel,
        steps=steps,
        first_epoch=first,
        worker=worker,
        after_epoch=report,
    )


def _with_item_vectors(weights: Path, content: Path) -> TwoTower:
    """Every item through the item tower, in blocks spread over the cluster."""
    from safetensors.numpy import load_file

    kept = load_file(weights)
    n_items, size = kept["embedding"].shape
    towers = {name: w for name, w in kept.items() if name not in ("embedding", "trained", "epoch")}
    inputs, vectors = (np.zeros((n_items, size), np.float32) for _ in range(2))
    blocks = -(-n_items // ITEMS_A_BLOCK)
    arguments = {"weights": str(weights.resolve()), "content": str(content.resolve())}
    items = ray.data.range(n_items, override_num_blocks=blocks)
    done = items.map_batches(_vectors, fn_kwargs=arguments, batch_size=None)  # type: ignore[arg-type]
    for batch in done.iter_batches(batch_size=None):
        inputs[batch["item"]], vectors[batch["item"]] = batch["inputs"], batch["vectors"]
    return assemble_two_tower(inputs, vectors, towers)


def _vectors(batch: dict[str, np.ndarray], weights: str, content: str) -> dict[str, np.ndarray]:
    """Input vectors and index vectors of a run of item numbers; reads only those rows."""
    from safetensors import safe_open

    item = batch["id"]
    first, last = int(item.min()), int(item.max()) + 1
    with safe_open(weights, "np") as file:
        rows = {name: file.get_slice(name)[first:last] for name in ("embedding", "trained")}
        towers = {name: file.get_tensor(name) for name in file.keys() if name not in ("embedding", "trained", "epoch")}  # noqa: SIM118
    known = Content.load(Path(content)).vectors[first:last]
    inputs = build_input_vectors(rows["embedding"], known, rows["trained"] > 0, towers)
    chosen = item - first
    return {"item": item, "inputs": inputs[chosen], "vectors": build_item_vectors(inputs, towers)[chosen]}
