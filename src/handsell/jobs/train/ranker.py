"""Fitting the ranker under Ray Train: each worker reads whole groups from shards of its own.

`RayTrainReportCallback` is not used (with two workers it did not finish here, and it checkpoints each
round); the first worker reports once, at the end, with the finished ranker as the checkpoint.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.xgboost import XGBoostTrainer

from handsell.core.errors import TrainingError
from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import calibrate_ranker, train_booster
from handsell.ranking.shards import count_usable_workers, read_shards, shard_folders
from handsell.ranking.xgboost_ranker import XGBoostRanker

log = logging.getLogger(__name__)


def fit_on_ray(
    examples: Path,
    validation: Path,
    config: RankingConfig,
    features: tuple[str, ...],
    out: Path,
    *,
    cpus: float = 1.0,
    retries: int = 1,
    prior: float = 0.0,
) -> XGBoostRanker:
    """Fit on `config.workers` workers of `cpus` logical CPUs each, save the ranker to `out`, and load it.

    Folders must be readable on every node. Needs a connected Ray cluster. Raises TrainingError where there
    are fewer shards than workers, no examples, or Ray Train gave up after `retries` failures.
    """
    for folder in (examples, validation):
        shard_folders(folder, workers=config.workers)
    workers = count_usable_workers(examples, validation, config.workers)
    if workers < config.workers:
        log.warning("ranker: too few groups for %d workers; fitting on %d", config.workers, workers)
    loop = {
        "examples": str(examples.resolve()),
        "validation": str(validation.resolve()),
        "config": config.model_dump(),
        "features": features,
        "threads": max(int(cpus), 1),
        "prior": prior,
    }
    with tempfile.TemporaryDirectory(prefix="handsell-ranker-", dir=_parent(out)) as storage:
        trainer = XGBoostTrainer(
            train_worker,
            train_loop_config=loop,
            scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cpus}),
            run_config=RunConfig(
                name="ranker", storage_path=storage, failure_config=FailureConfig(max_failures=retries)
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"the ranker could not be trained on {workers} Ray workers: {error}") from error
        if result.checkpoint is None:
            raise TrainingError("the ranker's training ended without a model: see the Ray Train log of run 'ranker'")
        with result.checkpoint.as_directory() as folder:
            shutil.copytree(folder, out, dirs_exist_ok=True)
    return XGBoostRanker.load(out)


def train_worker(loop: dict[str, Any]) -> None:
    """What each worker runs: its shards in, one common booster out; worker 0 calibrates and reports it."""
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
    )
    if worker:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        calibrate_ranker(booster, loop["prior"], shard_folders(validation), features).save(Path(folder))
        ray.train.report({"trees": booster.num_boosted_rounds()}, checkpoint=Checkpoint.from_directory(folder))


def _parent(out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    return out.parent
