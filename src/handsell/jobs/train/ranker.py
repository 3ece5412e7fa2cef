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

from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.features.matrix import select_ranker_features
from handsell.jobs.train.devices import build_scaling, name_device
from handsell.ranking.blended_ranker import choose_blend
from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import PRIOR, calibrate_ranker, fit_xgboost, train_booster
from handsell.ranking.ranker_files import AnyRanker, load_ranker
from handsell.ranking.shards import count_usable_workers, read_shards, shard_folders
from handsell.ranking.xgboost_ranker import FUSED
from handsell.retrieval.fusion import max_fused_score

log = logging.getLogger(__name__)


def plan_ranker(config: Config, run: Path, out: Path) -> tuple[Path, Path, RankingConfig, tuple[str, ...], Path, float]:
    """Return the arguments of a fit on a run's examples: two folders, settings, features, output, prior."""
    features, examples = select_ranker_features(config, config.retrieval.enabled), run / "examples"
    largest = max_fused_score([config.retrieval[name].weight for name in config.retrieval.enabled])
    prior = PRIOR / largest if FUSED in features and largest else 0.0
    return examples / "ranker", examples / "validation", config.ranking, features, out, prior


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


def fit_ranker_in_process(
    examples: Path,
    validation: Path,
    config: RankingConfig,
    features: tuple[str, ...],
    out: Path,
    prior: float = 0.0,
    *,
    threads: int = 1,
) -> None:
    """Fit in this process and save the ranker to `out`: the start of Ray Train takes longer on few examples."""
    fitted: list[Any] = []
    if config.model != "transformer":
        fitted.append(fit_xgboost(examples, validation, config, features, threads, prior))
    if config.model != "xgboost":
        from handsell.ranking.neural.fitting import fit_transformer  # torch takes a second to import
        from handsell.retrieval.neural.training import use_one_thread

        with use_one_thread():
            fitted.append(fit_transformer(examples, validation, config, features, prior))
    save_ranker(fitted, validation, features, out)


def save_ranker(fitted: list[Any], validation: Path, features: tuple[str, ...], out: Path) -> None:
    """Save the fitted ranker to the folder `out`, or the blend of two, chosen on the validation examples."""
    ranker = fitted[0]
    if len(fitted) == 2:
        trees, transformer = fitted
        ranker = choose_blend(trees, transformer, read_shards(shard_folders(validation), features, history=True))
    shutil.rmtree(out, ignore_errors=True)
    ranker.save(out)


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
