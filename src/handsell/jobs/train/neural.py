"""Neural retrievers under Ray Train: each worker has users of its own, and a killed worker costs an epoch at most."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.data.interactions import Interactions
from handsell.jobs.progress import report_update
from handsell.jobs.train.windows import Sizes
from handsell.retrieval.embedding import EmbeddingRetriever

STATE = "state.safetensors"  # in a checkpoint: what training goes on from, and what the model is made of

Arrays = Mapping[str, np.ndarray]


def fit_on_ray(
    name: str,
    worker: Callable[[dict[str, Any]], None],
    finished: Callable[[Path, Config, Path], EmbeddingRetriever],
    config: Config,
    interactions: Path,
    content: Path,
    sizes: Sizes,
    out: Path,
) -> float:
    """Fit on the Parquet parts in `interactions` and the saved Content; save the model to `out`; returns seconds.

    `worker` gets the loop (parts, sizes, content, config) and ends with `report`; `finished` makes the retriever
    from the file of the last state, the config and `content`. Folders must be readable on every node. Needs a Ray
    cluster with a free CPU per worker.
    """
    begun = time.monotonic()
    section = config.retrieval[name]
    loop = {
        "parts": [str(part) for part in sorted(interactions.resolve().glob("*.parquet"))],
        "sizes": (sizes.users, sizes.items),
        "content": str(content.resolve()),
        "config": section.model_dump(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"handsell-{name}-", dir=out.parent) as storage:
        state = _train(name, worker, loop, section.workers, Path(storage), config.jobs.wait_for_resources_s)
        some = Interactions.read([Path(part) for part in loop["parts"][:1]], sizes.users, sizes.items)  # whole users
        finished(state, config, content).with_index(config.retrieval, some).save(out)
    return round(time.monotonic() - begun, 2)


def _train(
    name: str,
    worker: Callable[[dict[str, Any]], None],
    loop: dict[str, Any],
    workers: int,
    storage: Path,
    wait_s: float,
) -> Path:
    """Run the workers; returns the file with the last state, copied into `storage`."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(wait_s))
    trainer = TorchTrainer(
        worker,
        train_loop_config=loop,
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            failure_config=FailureConfig(max_failures=1, controller_failure_limit=1),  # type: ignore[call-arg]
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(
            f"{name} could not be trained on {workers} Ray workers of 1 CPU each: {error}. "
            f"Free some CPUs, declare more (jobs.num_cpus), or lower retrieval.{name}.workers."
        ) from error
    if result.checkpoint is None:
        raise TrainingError(f"the {name} training ended without a model: see the Ray Train log of run {name!r}")
    with result.checkpoint.as_directory() as folder:
        shutil.copy(Path(folder) / STATE, storage / STATE)
    return storage / STATE


def read_share(parts: list[str], sizes: tuple[int, int], worker: int, workers: int) -> Interactions:
    """One worker's users: whole parts where there are enough of them, else users by number."""
    if len(parts) >= workers:
        return Interactions.read([Path(part) for part in parts[worker::workers]], *sizes)
    events = Interactions.read([Path(part) for part in parts], *sizes)
    return events.where(events.user % workers == worker)


def steps_together(name: str, own: int, workers: int) -> int:
    """Steps of an epoch that every worker has data for; raises TrainingError where one has none and another has."""
    from handsell.retrieval.neural.training import reduce_over_workers

    steps, most = (int(reduce_over_workers(np.array([own]), how)[0]) for how in ("min", "max"))
    if steps < most and steps == 0:
        raise TrainingError(
            f"{name}: one of {workers} workers has no user with two events to learn from, another has {most} steps: "
            f"set retrieval.{name}.workers = 1"
        )
    return steps


def report(worker: int, line: str, metrics: dict[str, float], state: Callable[[], Arrays]) -> None:
    """After an epoch: worker 0 prints the line and leaves a checkpoint of `state`."""
    from safetensors.numpy import save_file

    if worker:
        ray.train.report({})
        return
    report_update(line)
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: np.ascontiguousarray(a) for name, a in state().items()}, Path(folder) / STATE)
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def last_state() -> dict[str, np.ndarray] | None:
    """What the last checkpoint holds, after a worker died; None at the start."""
    from safetensors.numpy import load_file

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return load_file(Path(folder) / STATE)


def data_parallel(model: Any) -> Any:
    """The model with gradients shared among the workers; its buffers are the same file everywhere."""
    from ray.train.torch import prepare_model

    return prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
