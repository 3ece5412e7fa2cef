"""The two-tower model on Ray: trained by Ray Train, each worker on users of its own; item vectors by Ray Data."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray.data
import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from handsell.core.config import Config
from handsell.core.config.retrieval import TwoTowerConfig
from handsell.core.errors import TrainingError
from handsell.data.interactions import Interactions
from handsell.jobs.windows import Sizes
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.two_tower import TwoTower, assemble, input_vectors, item_vectors

WEIGHTS = "weights.safetensors"  # in a checkpoint: all parameters, the items trained, the epoch reached
ITEMS_A_BLOCK = 50_000


def fit_two_tower_on_ray(config: Config, interactions: Path, content: Path, sizes: Sizes, out: Path) -> float:
    """Fit on the Parquet parts in `interactions` and the saved Content; save the model to `out`; returns seconds.

    Folders must be readable on every node. Needs a connected Ray cluster with a free CPU per worker.
    """
    begun = time.monotonic()
    section = config.retrieval.two_tower
    loop = {
        "parts": [str(part) for part in sorted(interactions.resolve().glob("*.parquet"))],
        "sizes": (sizes.users, sizes.items),
        "content": str(content.resolve()),
        "config": section.model_dump(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="handsell-two-tower-", dir=out.parent) as storage:
        weights = _train(loop, section.workers, Path(storage), config.jobs.wait_for_resources_s)
        _with_item_vectors(weights, content, sizes.items).indexed(config.retrieval.flat_below).save(out)
    return round(time.monotonic() - begun, 2)


def _train(loop: dict[str, Any], workers: int, storage: Path, wait_s: float) -> Path:
    """Run the workers; returns the file with the weights of the last epoch, copied into `storage`."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(wait_s))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=loop,
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name="two_tower",
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=1, controller_failure_limit=1),  # type: ignore[call-arg]
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(
            f"two_tower could not be trained on {workers} Ray workers of 1 CPU each: {error}. "
            "Free some CPUs, declare more (jobs.num_cpus), or lower retrieval.two_tower.workers."
        ) from error
    if result.checkpoint is None:
        raise TrainingError("the two_tower training ended without a model: see the Ray Train log of run 'two_tower'")
    with result.checkpoint.as_directory() as folder:
        shutil.copy(Path(folder) / WEIGHTS, storage / WEIGHTS)
    return storage / WEIGHTS


def train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs: its users in, gradients shared, and a checkpoint after each epoch from worker 0."""
    from ray.train.torch import prepare_model

    from handsell.retrieval import two_tower_training as training

    config = TwoTowerConfig(**loop["config"])
    context = ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    rows = training.Rows(read_share(loop["parts"], loop["sizes"], worker, workers), config)
    model = training.new_towers(loop["sizes"][1], Content.load(Path(loop["content"])), config)
    trained = training.among_workers(rows.trained.astype(np.int64), "max")
    own = np.array([training.steps_of(rows, config)])
    steps, most = (int(training.among_workers(own, how)[0]) for how in ("min", "max"))
    if steps < most and steps == 0:
        raise TrainingError(
            f"two_tower: one of {workers} workers has no user with two events to learn from, another has {most} steps: "
            "set retrieval.two_tower.workers = 1"
        )

    def report(epoch: int, loss: float, seconds_left: float) -> None:
        if worker:
            ray.train.report({})
            return
        print(training.progress_line(config, epoch, loss, seconds_left), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            _write(Path(folder) / WEIGHTS, training.weights_of(model), trained, epoch)
            checkpoint = Checkpoint.from_directory(folder)
            ray.train.report({"epoch": epoch, "loss": loss, "seconds_left": seconds_left}, checkpoint=checkpoint)

    first = _resume(model)
    if steps == 0 or first >= config.epochs:
        report(config.epochs, 0.0, 0.0)
        return
    options = {"broadcast_buffers": False}  # the content vectors are the same file everywhere
    training.train(
        model,
        rows,
        config,
        wrap=lambda m: prepare_model(m, parallel_strategy_kwargs=options),
        steps=steps,
        first_epoch=first,
        worker=worker,
        after_epoch=report,
    )


def read_share(parts: list[str], sizes: tuple[int, int], worker: int, workers: int) -> Interactions:
    """One worker's users: whole parts where there are enough of them, else users by number."""
    if len(parts) >= workers:
        return Interactions.read([Path(part) for part in parts[worker::workers]], *sizes)
    events = Interactions.read([Path(part) for part in parts], *sizes)
    return events.where(events.user % workers == worker)


def _resume(model: Any) -> int:
    """After a worker died: continue from the last checkpoint; returns the epochs done."""
    from safetensors.numpy import load_file

    from handsell.retrieval.two_tower_training import restore

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        weights = load_file(Path(folder) / WEIGHTS)
    restore(model, weights)
    return int(weights["epoch"][0])


def _write(path: Path, weights: dict[str, np.ndarray], trained: np.ndarray, epoch: int) -> None:
    from safetensors.numpy import save_file

    save_file({**weights, "trained": trained.astype(np.uint8), "epoch": np.array([epoch])}, path)


def _with_item_vectors(weights: Path, content: Path, n_items: int) -> TwoTower:
    """Every item through the item tower, in blocks spread over the cluster."""
    from safetensors.numpy import load_file

    towers = {name: w for name, w in load_file(weights).items() if name not in ("embedding", "trained", "epoch")}
    size = len(towers["item.2.bias"])
    inputs, vectors = (np.zeros((n_items, size), np.float32) for _ in range(2))
    blocks = -(-n_items // ITEMS_A_BLOCK)
    arguments = {"weights": str(weights.resolve()), "content": str(content.resolve())}
    items = ray.data.range(n_items, override_num_blocks=blocks)
    done = items.map_batches(_vectors, fn_kwargs=arguments, batch_size=None)  # type: ignore[arg-type]
    for batch in done.iter_batches(batch_size=None):
        inputs[batch["item"]], vectors[batch["item"]] = batch["inputs"], batch["vectors"]
    return assemble(inputs, vectors, towers)


def _vectors(batch: dict[str, np.ndarray], weights: str, content: str) -> dict[str, np.ndarray]:
    """Input vectors and index vectors of a run of item numbers; reads only those rows."""
    from safetensors import safe_open

    item = batch["id"]
    first, last = int(item.min()), int(item.max()) + 1
    with safe_open(weights, "np") as file:
        rows = {name: file.get_slice(name)[first:last] for name in ("embedding", "trained")}
        towers = {name: file.get_tensor(name) for name in file.keys() if name not in ("embedding", "trained", "epoch")}  # noqa: SIM118
    known = Content.load(Path(content)).vectors[first:last]
    inputs = input_vectors(rows["embedding"], known, rows["trained"] > 0, towers)
    chosen = item - first
    return {"item": item, "inputs": inputs[chosen], "vectors": item_vectors(inputs, towers)[chosen]}
