"""The two-tower model on Ray: trained by Ray Train, item vectors computed by Ray Data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ray.data
from safetensors import safe_open
from safetensors.numpy import load_file

from handsell.config import Config
from handsell.jobs.ray_tasks import silence_ray_data
from handsell.jobs.train.distributed.neural import TrainWorker, fit_on_workers
from handsell.jobs.train.windows import CatalogSizes
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.models.two_tower import (
    TwoTower,
    TwoTowerConfig,
    assemble_two_tower,
    build_input_vectors,
    build_item_vectors,
)
from handsell.retrieval.neural import two_tower_training as training
from handsell.retrieval.neural.training import load_weights, read_weights

ITEMS_PER_BLOCK = 50_000
NOT_TOWERS = ("embedding", "trained", "epoch")  # arrays of the state beside the weights of both towers


def fit(config: Config, interactions: Path, content: Path, sizes: CatalogSizes, out: Path) -> None:
    """Fit as `neural.fit_on_workers` describes."""
    fit_on_workers("two_tower", train_worker, build_model, config, interactions, content, sizes, out)


def train_worker(arguments: dict[str, Any]) -> None:
    """Train on one worker's users, with shared gradients and a checkpoint after each epoch."""
    config, worker = TwoTowerConfig(**arguments["config"]), TrainWorker.current(arguments)
    rows = training.TwoTowerRows(worker.read_interactions(), config)
    model = training.build_towers(worker.n_items, worker.load_content(), config)
    trained = worker.is_true_on_any_worker(rows.trained).astype(np.uint8)
    steps = worker.agree_on_steps(training.count_steps(rows, config))

    def report(epoch: int, loss: float, seconds_left: float) -> None:
        line = training.format_progress(config, epoch, loss, seconds_left)
        metrics = {"epoch": epoch, "loss": loss, "seconds_left": seconds_left}
        worker.report(line, metrics, lambda: {**read_weights(model), "trained": trained, "epoch": np.array([epoch])})

    last = worker.load_last_state()
    if last:
        load_weights(model, last)
    first = int(last["epoch"][0]) if last else 0
    if steps == 0 or first >= config.epochs:
        report(config.epochs, 0.0, 0.0)
        return
    training.train(
        model,
        rows,
        config,
        wrap=worker.share_gradients,
        steps=steps,
        first_epoch=first,
        worker=worker.rank,
        device=worker.device,
        after_epoch=report,
    )


def build_model(state: Path, config: Config, content: Path) -> TwoTower:
    """Compute the vectors of every item, in blocks spread over the cluster."""
    arrays = load_file(state)
    n_items, size = arrays["embedding"].shape
    towers = {name: w for name, w in arrays.items() if name not in NOT_TOWERS}
    inputs, vectors = (np.zeros((n_items, size), np.float32) for _ in range(2))
    arguments = {"weights": str(state.absolute()), "content": str(content.absolute())}
    silence_ray_data()
    items = ray.data.range(n_items, override_num_blocks=-(-n_items // ITEMS_PER_BLOCK))
    done = items.map_batches(_compute_vectors, fn_kwargs=arguments, batch_size=None)  # type: ignore[arg-type]
    for batch in done.iter_batches(batch_size=None):
        inputs[batch["item"]], vectors[batch["item"]] = batch["inputs"], batch["vectors"]
    return assemble_two_tower(inputs, vectors, towers)


def _compute_vectors(batch: dict[str, np.ndarray], weights: str, content: str) -> dict[str, np.ndarray]:
    """Return the input and index vectors of a run of item numbers; reads only their rows."""
    item = batch["id"]
    first, last = int(item.min()), int(item.max()) + 1
    with safe_open(weights, "np") as file:
        rows = {name: file.get_slice(name)[first:last] for name in ("embedding", "trained")}
        towers = {name: file.get_tensor(name) for name in file.keys() if name not in NOT_TOWERS}  # noqa: SIM118
    known = Content.load(Path(content)).vectors[first:last]
    inputs = build_input_vectors(rows["embedding"], known, rows["trained"] > 0, towers)
    chosen = item - first
    return {"item": item, "inputs": inputs[chosen], "vectors": build_item_vectors(inputs, towers)[chosen]}
