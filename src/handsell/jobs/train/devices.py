"""Devices of a training: one GPU per worker where `jobs.use_gpu` and the cluster say so, else CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from handsell.config import Config

if TYPE_CHECKING:  # Ray Train takes seconds to import
    from ray.train import ScalingConfig


def takes_gpus(config: Config, workers: int) -> bool:
    """Return whether `workers` workers train on GPUs. Needs a connected Ray cluster."""
    import ray

    return choose_gpus(config.jobs.use_gpu, workers, ray.cluster_resources())


def choose_gpus(use_gpu: bool | Literal["auto"], workers: int, resources: Mapping[str, float]) -> bool:
    """Return whether `workers` workers take a GPU each; `resources` are those of the whole cluster by name.

    "auto" takes them where there are enough; true does not look: an autoscaler may add them.
    """
    return resources.get("GPU", 0.0) >= workers if use_gpu == "auto" else use_gpu


def build_scaling(workers: int, gpu: bool, cpus: float = 1.0) -> ScalingConfig:
    """Return the workers of a Ray Train run, each with `cpus` logical CPUs, and a GPU if wanted."""
    from ray.train import ScalingConfig

    resources = {"CPU": cpus, "GPU": 1.0} if gpu else {"CPU": cpus}
    return ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker=resources)


def name_device(gpu: bool) -> str:
    """Return the name by which torch and XGBoost know the device of a worker, which sees its own GPU alone."""
    return "cuda" if gpu else "cpu"
