"""Shared by the training of neural models: weights, reduction over workers, threads and precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def read_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Return copies of all parameters by name, for safetensors."""
    return {name: p.detach().cpu().numpy().copy() for name, p in model.named_parameters()}


def load_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Set all parameters of a model by name."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(weights[name])))


def reduce_over_workers(value: np.ndarray, how: str) -> np.ndarray:
    """Return the `min`, `max` or `sum` of an array of int64 or float64 over all workers; without workers the array."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    both = torch.from_numpy(np.array(value))
    if torch.distributed.get_backend() == "nccl":  # which reduces on GPUs alone
        both = both.cuda()
    torch.distributed.all_reduce(both, getattr(torch.distributed.ReduceOp, how.upper()))
    return both.cpu().numpy()


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Limit torch to one thread within a `with` block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def use_reduced_precision() -> Iterator[None]:
    """Within a `with` block, round factors of matrix products to 16 bits where the processor supports it: up to 2×."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
