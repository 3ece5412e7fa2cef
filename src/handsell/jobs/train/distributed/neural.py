"""Neural retrievers under Ray Train: each worker has its own users, and each epoch a checkpoint.

Each retriever has a module, in this folder or in a package outside this repository, with three functions:
`fit(config, interactions, content, sizes, out)`, which its plug-in names as `job`; the loop of a worker; and the
function that builds the model.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from safetensors.numpy import load_file, save_file

from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.data.interactions import Interactions
from handsell.jobs.progress import report_update
from handsell.jobs.train.devices import build_scaling, takes_gpus
from handsell.jobs.train.windows import CatalogSizes
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.neural.training import reduce_over_workers

STATE = "state.safetensors"  # in a checkpoint: what training resumes from, and what the model is built from

Arrays = Mapping[str, np.ndarray]


def fit_on_workers(
    name: str,
    train_worker: Callable[[dict[str, Any]], None],
    build_model: Callable[[Path, Config, Path], EmbeddingRetriever],
    config: Config,
    interactions: Path,
    content: Path,
    sizes: CatalogSizes,
    out: Path,
) -> None:
    """Fit on the Parquet parts in `interactions` and the saved Content; save the model to `out`.

    `train_worker` gets the arguments of `TrainWorker.current` and ends with `report`; `build_model` makes the
    retriever from the file of the last state, the config and `content`. Folders must be readable on every node. Needs
    a Ray cluster with a free CPU per worker.
    """
    section = config.retrieval[name]
    arguments = {
        "name": name,
        "parts": [str(part) for part in sorted(interactions.absolute().glob("*.parquet"))],
        "sizes": (sizes.users, sizes.items),
        "content": str(content.absolute()),
        "config": section.model_dump(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"handsell-{name}-", dir=out.parent) as storage:
        wait_s = config.jobs.wait_for_resources_s
        gpu = takes_gpus(config, section.workers)
        state = _run_workers(name, train_worker, arguments, section.workers, gpu, Path(storage), wait_s)
        some = Interactions.read([Path(part) for part in arguments["parts"][:1]], sizes.users, sizes.items)
        build_model(state, config, content).with_index(config.retrieval, some).save(out)


def _run_workers(
    name: str,
    train_worker: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    workers: int,
    gpu: bool,
    storage: Path,
    wait_s: float,
) -> Path:
    """Run the workers; return the file with the last state, copied to `storage`."""
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(wait_s))
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=arguments,
        scaling_config=build_scaling(workers, gpu),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage.absolute()),
            failure_config=FailureConfig(max_failures=1, controller_failure_limit=1),  # type: ignore[call-arg]
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(
            f"{name} could not be trained on {workers} Ray workers of 1 CPU{' and 1 GPU' * gpu} each: {error}. "
            f"Free some CPUs, declare more (jobs.num_cpus), or lower retrieval.{name}.workers"
            f"{', or set jobs.use_gpu = false' * gpu}."
        ) from error
    if result.checkpoint is None:
        raise TrainingError(f"{name}: expected a model, training ended without one: see the Ray Train log of {name!r}")
    with result.checkpoint.as_directory() as folder:
        shutil.copy(Path(folder) / STATE, storage / STATE)
    return storage / STATE


@dataclass(frozen=True)
class TrainWorker:
    """One worker of the Ray Train run in this process: its share of the data, and its messages to the others."""

    name: str
    rank: int
    count: int
    arguments: dict[str, Any]

    @classmethod
    def current(cls, arguments: dict[str, Any]) -> TrainWorker:
        context = ray.train.get_context()
        return cls(arguments["name"], context.get_world_rank(), context.get_world_size(), arguments)

    @property
    def device(self) -> str:
        """Name of this worker's device: cpu, or its GPU."""
        return str(get_device())

    @property
    def n_items(self) -> int:
        return self.arguments["sizes"][1]

    def load_content(self) -> Content:
        return Content.load(Path(self.arguments["content"]))

    def read_interactions(self) -> Interactions:
        """Read this worker's users: whole parts if there are enough of them, else users by number."""
        parts, sizes = [Path(part) for part in self.arguments["parts"]], self.arguments["sizes"]
        if len(parts) >= self.count:
            return Interactions.read(parts[self.rank :: self.count], *sizes)
        events = Interactions.read(parts, *sizes)
        return events.where(events.user % self.count == self.rank)

    def is_true_on_any_worker(self, mask: np.ndarray) -> np.ndarray:
        """Return where a mask (N,) bool is true on at least one worker."""
        return reduce_over_workers(mask.astype(np.int64), "max") > 0

    def agree_on_steps(self, own: int) -> int:
        """Return the steps of an epoch that every worker has data for.

        Raises TrainingError if one has no data and another has.
        """
        steps, most = (int(reduce_over_workers(np.array([own]), how)[0]) for how in ("min", "max"))
        if steps < most and steps == 0:
            raise TrainingError(
                f"{self.name}: one of {self.count} workers has no user with two events to learn from, another has "
                f"{most} steps: set retrieval.{self.name}.workers = 1"
            )
        return steps

    def share_gradients(self, model: Any) -> Any:
        """Wrap the model so that workers share gradients; its buffers are the same file everywhere."""
        return prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})

    def load_last_state(self) -> dict[str, np.ndarray] | None:
        """Return the state of the last checkpoint, after a worker died; None at the start."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return load_file(Path(folder) / STATE)

    def report(self, line: str, metrics: dict[str, float], state: Callable[[], Arrays]) -> None:
        """End an epoch: the first worker prints the line and saves a checkpoint of `state`."""
        if self.rank:
            ray.train.report({})
            return
        report_update(line)
        with tempfile.TemporaryDirectory() as folder:
            save_file({name: np.ascontiguousarray(a) for name, a in state().items()}, Path(folder) / STATE)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))
