"""The ranker's fit under Ray Train: each worker reads whole groups from its own shards.

`RayTrainReportCallback` is not used: with two workers it does not finish, and it saves a checkpoint each round. The
first worker reports once, at the end, with the finished ranker as the checkpoint.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.data_parallel_trainer import DataParallelTrainer
from ray.train.xgboost import XGBoostTrainer

from handsell.core.errors import TrainingError
from handsell.jobs.train.devices import build_scaling, name_device
from handsell.jobs.train.ranker import save_ranker
from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import calibrate_ranker, train_booster
from handsell.ranking.ranker_files import AnyRanker, load_ranker
from handsell.ranking.shards import count_usable_workers, read_shards, shard_folders

log = logging.getLogger(__name__)


def fit_ranker_on_ray(
    examples: Path,
    validation: Path,
    config: RankingConfig,
    features: tuple[str, ...],
    out: Path,
    prior: float = 0.0,
    *,
    cpus: float = 1.0,
    gpu: bool = False,
    retries: int = 1,
) -> AnyRanker:
    """Fit on `config.workers` workers of `cpus` logical CPUs and perhaps a GPU, save the ranker to `out`, load it.

    A blend is chosen in this process, after both of its models. Folders must be readable on every node. Needs a
    connected Ray cluster. Raises TrainingError for fewer shards than workers, without examples, or after more than
    `retries` failures.
    """
    for folder in (examples, validation):
        shard_folders(folder, workers=config.workers)
    workers = count_usable_workers(examples, validation, config.workers)
    if workers < config.workers:
        log.warning("ranker: too few groups for %d workers; fitting on %d", config.workers, workers)
    loop = {
        "examples": str(examples.absolute()),
        "validation": str(validation.absolute()),
        "config": config.model_dump(),
        "features": features,
        "threads": max(int(cpus), 1),
        "prior": prior,
        "device": name_device(gpu),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="handsell-ranker-", dir=out.parent) as storage:
        scaling = build_scaling(workers, gpu, cpus)
        models = ("xgboost", "transformer") if config.model == "blend" else (config.model,)
        fitted = [load_ranker(_run_workers(model, loop, scaling, Path(storage), retries)) for model in models]
    save_ranker(fitted, validation, features, out)
    return load_ranker(out)


def _run_workers(model: str, loop: dict[str, Any], scaling: ScalingConfig, storage: Path, retries: int) -> Path:
    """Run the workers of one model; return the folder within `storage` that the ranker is in."""
    run = RunConfig(name=model, storage_path=str(storage), failure_config=FailureConfig(max_failures=retries))
    trainer: DataParallelTrainer
    if model == "xgboost":
        trainer = XGBoostTrainer(train_worker, train_loop_config=loop, scaling_config=scaling, run_config=run)
    else:
        from handsell.jobs.train.distributed.transformer import build_trainer  # torch takes a second to import

        trainer = build_trainer(loop, scaling, run)
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"the ranker could not be trained on {scaling.num_workers} Ray workers: {error}") from error
    if result.checkpoint is None:
        raise TrainingError(
            f"ranker: expected a model, training ended without one: see the Ray Train log of run {model!r}"
        )
    with result.checkpoint.as_directory() as folder:
        shutil.copytree(folder, storage / f"{model}-ranker")
    return storage / f"{model}-ranker"


def train_worker(loop: dict[str, Any]) -> None:
    """Train one common booster on this worker's shards; the first worker calibrates and reports it."""
    context = ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    features = tuple(loop["features"])
    examples, validation = Path(loop["examples"]), Path(loop["validation"])
    booster = train_booster(
        read_shards(shard_folders(examples, worker, workers), features),
        read_shards(shard_folders(validation, worker, workers), features),
        RankingConfig(**loop["config"]),
        loop["threads"],
        loop["prior"],
        loop["device"],
    )
    if worker:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        calibrate_ranker(booster, loop["prior"], shard_folders(validation), features).save(Path(folder))
        ray.train.report({"trees": booster.num_boosted_rounds()}, checkpoint=Checkpoint.from_directory(folder))
