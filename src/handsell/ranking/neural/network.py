"""The network of the ranking transformer in torch: the same function as `TransformerRanker`, over padded lists."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from handsell.ranking.transformer import EPSILON, HEADS, split_knots

PRIOR_SHARE = 0.125  # at the start of the training


class TransformerNetwork(nn.Module):
    """Parameters by the names that `TransformerRanker` reads. Sizes: F features, S segments, D, 2 D hidden."""

    low: torch.Tensor
    scale: torch.Tensor

    def __init__(self, knots: np.ndarray, size: int, dropout: float):
        super().__init__()
        self.knots = knots
        features, segments = knots.shape[0], knots.shape[1] - 1
        low, scale = split_knots(knots)
        self.register_buffer("low", torch.from_numpy(low.astype(np.float32)), persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale.astype(np.float32)), persistent=False)
        self.table = nn.Parameter(torch.randn(features, segments + 1, size) * (0.3 / features**0.5))
        self.bias, self.history, self.history_weight, self.score = (_zeros(size) for _ in range(4))
        self.history_bias = _zeros(HEADS)
        self.prior_share = nn.Parameter(torch.tensor(PRIOR_SHARE))
        self.query, self.key, self.value, self.mix = (_draw(size, size) for _ in range(4))
        self.first_in, self.second_in = (_draw(size, 2 * size) for _ in range(2))
        self.first_bias, self.second_bias = (_zeros(2 * size) for _ in range(2))
        self.first_out, self.second_out = (_draw(2 * size, size) for _ in range(2))
        self.dropout = dropout

    def forward(
        self, x: torch.Tensor, weight: torch.Tensor, past: torch.Tensor, real: torch.Tensor, prior: torch.Tensor
    ) -> torch.Tensor:
        """Return scores (B, L) of lists x (B, L, F); only those of rows that are not `past` have a meaning.

        Rows are candidates and, where `past` (B, L), items of the history; `real` (B, L) is false for padding.
        `weight` (B, L) is the number of candidates that a row represents, or the weight of the history's event. A
        learned share of `prior` (B, L), the margin from which trees start, is added: all of it would be too steep for
        a softmax.
        """
        event = past.float() * weight
        state = self._embed(x) + past[:, :, None] * self.history + event[:, :, None] * self.history_weight
        state = self._drop(state)
        state = state + self._drop(self._feed_forward(state, "first"))
        bias = torch.where(past, torch.zeros(()), torch.log(weight.clamp(min=1)))[:, None, None, :]
        bias = bias + past[:, None, None, :] * self.history_bias[None, :, None, None]
        state = state + self._drop(self._attend(normalize(state), bias, real))
        state = state + self._drop(self._feed_forward(state, "second"))
        return normalize(state) @ self.score + self.prior_share * prior

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        missing = x.isnan()
        basis = ((torch.nan_to_num(x)[..., None] - self.low) * self.scale).clamp(0, 1)
        basis = torch.where(missing[..., None], torch.zeros(()), basis)
        basis = torch.cat([basis, missing[..., None].float()], dim=-1)
        return basis.flatten(-2) @ self.table.flatten(0, 1) + self.bias

    def _attend(self, x: torch.Tensor, bias: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            (x @ matrix).unflatten(-1, (HEADS, -1)).transpose(1, 2) for matrix in (self.query, self.key, self.value)
        )
        logit = query @ key.transpose(-1, -2) * key.shape[-1] ** -0.5 + bias
        blocked = ~real[:, None, None, :] | torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        logit = logit.masked_fill(blocked, -torch.inf)
        logit = functional.pad(logit, (1, 0))  # a row may attend to nothing
        share = logit.softmax(dim=-1)[..., 1:]
        return (share @ value).transpose(1, 2).flatten(-2) @ self.mix

    def _feed_forward(self, x: torch.Tensor, name: str) -> torch.Tensor:
        parameters = (getattr(self, f"{name}_{part}") for part in ("in", "bias", "out"))
        inner, bias, outer = parameters
        return torch.relu(normalize(x) @ inner + bias) @ outer

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.dropout, self.training)


def normalize(x: torch.Tensor) -> torch.Tensor:
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + EPSILON)


def _zeros(size: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(size))


def _draw(inputs: int, outputs: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(inputs, outputs) * inputs**-0.5)
