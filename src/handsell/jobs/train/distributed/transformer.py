"""The ranking transformer under Ray Train: each worker reads whole groups from its own shards and shares gradients."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from handsell.ranking.config import RankingConfig
from handsell.ranking.neural.fitting import Workers, build_ranker, find_knots, train_network
from handsell.ranking.shards import read_shards, shard_folders
from handsell.retrieval.neural.training import reduce_over_workers


def build_trainer(loop: dict[str, Any], scaling: ScalingConfig, run: RunConfig) -> TorchTrainer:
    """Build the Ray Train run of the workers; `loop` is the argument of `train_worker`."""
    return TorchTrainer(train_worker, train_loop_config=loop, scaling_config=scaling, run_config=run)


def train_worker(loop: dict[str, Any]) -> None:
    """Train one common network on this worker's shards; the first worker calibrates and reports it."""
    context = ray.train.get_context()
    worker, workers = context.get_world_rank(), context.get_world_size()
    features, config = tuple(loop["features"]), RankingConfig(**loop["config"])
    train, validation = (
        read_shards(shard_folders(Path(loop[name]), worker, workers), features, history=True)
        for name in ("examples", "validation")
    )
    shared = Workers(
        rank=worker,
        share_gradients=lambda network: prepare_model(network, parallel_strategy_kwargs={"broadcast_buffers": False}),
        agree_on_steps=lambda steps: int(reduce_over_workers(np.array([steps]), "min")[0]),
        add_up=lambda sums: reduce_over_workers(sums, "sum"),
        device=str(get_device()),
    )
    knots = find_knots(read_shards(shard_folders(Path(loop["examples"]), 0, workers), features))
    network = train_network(train, validation, config, loop["prior"], knots, shared)
    if worker:
        ray.train.report({})
        return
    every = read_shards(shard_folders(Path(loop["validation"])), features, history=True)
    with tempfile.TemporaryDirectory() as folder:
        build_ranker(network, features, every, config, loop["prior"]).save(Path(folder))
        ray.train.report({}, checkpoint=Checkpoint.from_directory(folder))
