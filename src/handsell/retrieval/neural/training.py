"""What the trainings of neural models share: weights in and out, agreement between workers, threads and precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def read_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Every parameter by name, for safetensors; copies."""
    return {name: p.detach().cpu().numpy().copy() for name, p in model.named_parameters()}


def load_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(weights[name])))


def reduce_over_workers(value: np.ndarray, how: str) -> np.ndarray:
    """The `min`, `max` or `sum` of an array, of int64 or float64, over all workers of this training."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    both = torch.from_numpy(np.array(value))
    torch.distributed.all_reduce(both, getattr(torch.distributed.ReduceOp, how.upper()))
    return both.numpy()


@contextmanager
def use_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def use_reduced_precision() -> Iterator[None]:
    """Matrix products of factors rounded to 16 bits, summed in 32, where the processor can: up to twice as fast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
