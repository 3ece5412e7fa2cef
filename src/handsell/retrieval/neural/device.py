"""The device that a neural model is trained on: in mixed precision on a GPU, in single precision on a CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class Device:
    """A torch device with its precision: bfloat16 on GPUs that have it, float16 with scaled losses on others."""

    def __init__(self, name: str = "cpu"):
        self.torch = torch.device(name)
        self.precision = choose_precision(self.torch.type)
        self._scaler = torch.amp.GradScaler(self.torch.type, enabled=self.precision is torch.float16)

    def compute_loss(self, model: Any, batch: Any) -> torch.Tensor:
        """Return the loss of a batch, with matrix products in the device's precision."""
        if self.precision is None:
            return model(batch)
        with torch.autocast(self.torch.type, self.precision):
            return model(batch)

    def step(self, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Compute the gradients and update the weights; a step whose scaled gradients overflow is left out."""
        self._scaler.scale(loss).backward()
        self._scaler.step(optimizer)
        self._scaler.update()


def choose_precision(kind: str) -> torch.dtype | None:
    """Return the type of matrix products on a kind of device; None: as the tensors are."""
    if kind != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def place(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Return an array as a tensor on the device of another."""
    return torch.from_numpy(array).to(like.device, non_blocking=True)
