"""Two-tower model: one network for the user's history and context, one for items; inference in NumPy.

Sources: [covington2016] for a user tower over the pooled history, [yi2019] for the training, which is in
`neural/two_tower_training.py`. The input vector of an item is its id embedding plus its projected content; items
without interactions have content only. The item tower maps input vectors to the vectors of the index. The user tower
pools the input vectors of the history, so that new users need no training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from handsell.core.batches import History, Requests
from handsell.core.kernels import compiled
from handsell.core.units import DAY_US
from handsell.retrieval.config import NeuralSource, RetrieverPlugin
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.history_weights import compute_decay, count_later_likes
from handsell.retrieval.index.vector_index import VectorIndex

HISTORY = 50  # most recent events that the user tower reads
POOLS = 3  # long-term likes, recent likes, dislikes
CONTEXT = 4
LONG_HALF_LIFE_DAYS = 28.0
RECENT_HALF_LIFE_EVENTS = 3.0
ROWS_AT_ONCE = 16_384
LOG_HISTORY = np.log1p(HISTORY)

Weights = Mapping[str, np.ndarray]


class TwoTowerConfig(NeuralSource):
    embedding_size: int = Field(64, ge=2, description="D, width of both towers' output")
    hidden: int = Field(128, ge=2, description="width of a tower's hidden layer")
    epochs: int = Field(6, ge=1, description="passes over the likes")
    batch_size: int = Field(1024, ge=2, description="likes per step; the other items of a batch are negatives")
    learning_rate: float = Field(2e-3, gt=0, description="learning rate of Adam")
    reg: float = Field(1e-6, ge=0, description="weight decay")
    temperature: float = Field(0.07, gt=0, description="divisor of the cosine similarities in the softmax")
    hard_negatives: int = Field(0, ge=0, description="negatives per row, drawn from the model's own top ranks; 0: none")
    seed: int = Field(0, description="random seed of the initial weights and of the batch order")


def build_user_inputs(history: History, time: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the user tower's inputs: items (B, T), pooling weights (B, POOLS, T) and context (B, CONTEXT).

    The weights of a pool sum to 1, or are all 0; ignored events have item 0 and weight 0. Training and inference use
    the same function.
    """
    item, when, weight = (a[:, -HISTORY:] for a in (history.item, history.time, history.weight))
    if compiled is not None and item.size:
        return _pool_compiled(item, when, weight, time, n_items)
    valid = (item >= 0) & (item < n_items) & (when < time[:, None]) & (weight != 0)
    liked = np.where(valid & (weight > 0), weight, 0)
    disliked = np.where(valid & (weight < 0), -weight, 0)
    later = count_later_likes(liked > 0)
    pools = np.stack(
        [
            liked * compute_decay(when, valid, LONG_HALF_LIFE_DAYS),
            liked * np.exp2(-later / RECENT_HALF_LIFE_EVENTS),
            disliked,
        ],
        axis=1,
    )
    total = pools.sum(axis=2, keepdims=True)
    pools = (pools / np.where(total > 0, total, 1)).astype(np.float32)
    return np.where(valid, item, 0).astype(np.int64), pools, _build_context(valid.sum(axis=1), time)


def _pool_compiled(
    item: np.ndarray, when: np.ndarray, weight: np.ndarray, time: np.ndarray, n_items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `build_user_inputs` returns, from the kernel."""
    rows, length = item.shape
    items, pools = np.empty((rows, length), np.int64), np.empty((rows, POOLS, length), np.float32)
    valid = np.empty(rows, np.int64)
    compiled.pool_history(
        np.ascontiguousarray(item, np.int32), np.ascontiguousarray(when, np.int64),
        np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(time, np.int64), items, pools, valid,
        n_items, LONG_HALF_LIFE_DAYS * DAY_US, RECENT_HALF_LIFE_EVENTS,
    )  # fmt: skip
    return items, pools, _build_context(valid, time)


def _build_context(events: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return (B, CONTEXT): sine and cosine of the hour, weekend, length of the history of so many `events` (B,).

    The time since the last event is left out: training rows follow the last event directly, so that a model that reads
    it is worse for users who return later (docs/decisions/013).
    """
    angle = (time % DAY_US) * (2 * np.pi / DAY_US)
    weekend = ((time // DAY_US + 3) % 7) >= 5  # the epoch started on a Thursday; Monday is 0
    out = np.empty((len(time), CONTEXT), np.float32)
    out[:, 0], out[:, 1], out[:, 2] = np.sin(angle), np.cos(angle), weekend
    out[:, 3] = np.log1p(events) / LOG_HISTORY
    return out


def apply_item_tower(inputs: np.ndarray, weights: Weights) -> np.ndarray:
    """Return unit vectors (N, E) of items with input vectors (N, E)."""
    out = np.empty_like(inputs)
    for start in range(0, len(inputs), ROWS_AT_ONCE):
        x = inputs[start : start + ROWS_AT_ONCE]
        out[start : start + ROWS_AT_ONCE] = _normalize(x + _apply_layers(x, weights, "item"))
    return out


def apply_user_tower(pooled: np.ndarray, context: np.ndarray, weights: Weights) -> np.ndarray:
    """Return unit vectors (B, E) of users with pooled input vectors (B, POOLS, E) and context (B, CONTEXT)."""
    x = np.concatenate([pooled.reshape(len(pooled), -1), context], axis=1)
    return _normalize(pooled[:, 0] + pooled[:, 1] + _apply_layers(x, weights, "user"))


def _apply_layers(x: np.ndarray, weights: Weights, tower: str) -> np.ndarray:
    hidden = np.maximum(x @ weights[f"{tower}.0.weight"].T + weights[f"{tower}.0.bias"], 0)
    return hidden @ weights[f"{tower}.2.weight"].T + weights[f"{tower}.2.bias"]


def _normalize(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class TwoTowerEncoder:
    """The user tower, and the input vectors of all items."""

    inputs: np.ndarray  # (I, E) float32
    weights: Weights

    def encode(self, requests: Requests) -> np.ndarray:
        """Return user vectors (B, E); zeros for a request whose history has no likes."""
        out = np.zeros((len(requests), self.inputs.shape[1]), np.float32)
        item, pools, context = build_user_inputs(requests.history, requests.time, len(self.inputs))
        for b in np.flatnonzero(pools[:, 0].any(axis=1)):  # one at a time: results do not depend on the batch
            used = pools[b].any(axis=0)
            pooled = pools[b][:, used] @ self.inputs[item[b, used]]
            out[b] = apply_user_tower(pooled[None], context[b : b + 1], self.weights)[0]
        return out

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "inputs.npy", self.inputs)
        save_file({name: np.ascontiguousarray(w) for name, w in self.weights.items()}, path / "towers.safetensors")

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> TwoTowerEncoder:
        return cls(np.asarray(np.load(path / "inputs.npy", mmap_mode="r")), load_file(path / "towers.safetensors"))


class TwoTower(EmbeddingRetriever):
    name: ClassVar[str] = "two_tower"
    encoder_type = TwoTowerEncoder


def build_input_vectors(
    embedding: np.ndarray, content: np.ndarray, trained: np.ndarray, weights: Weights
) -> np.ndarray:
    """Return input vectors (N, E): id embeddings of the items in `trained` (N,) bool, plus projected content (N, D)."""
    inputs = embedding * trained[:, None]
    if "projection.weight" in weights:
        inputs = inputs + content @ weights["projection.weight"].T
    return np.ascontiguousarray(inputs, np.float32)


def build_item_vectors(inputs: np.ndarray, weights: Weights) -> np.ndarray:
    """Return the index's vectors (N, E); zeros for an item without any input."""
    return np.where((inputs != 0).any(axis=1, keepdims=True), apply_item_tower(inputs, weights), 0).astype(np.float32)


def assemble_two_tower(inputs: np.ndarray, vectors: np.ndarray, weights: Weights) -> TwoTower:
    """Build the retriever from item inputs, item vectors and the towers' weights."""
    towers = {name: w for name, w in weights.items() if name.startswith(("item.", "user."))}
    return TwoTower(TwoTowerEncoder(inputs, towers), VectorIndex.exact(vectors))


def build_two_tower(weights: Weights, content: Content | None, trained: np.ndarray) -> TwoTower:
    """Build the retriever from all trained weights; items outside `trained` (I,) bool have content only."""
    inputs = build_input_vectors(
        weights["embedding"], content.vectors if content else np.zeros((len(trained), 0)), trained, weights
    )
    return assemble_two_tower(inputs, build_item_vectors(inputs, weights), weights)


RETRIEVER = RetrieverPlugin(
    "two_tower",
    TwoTowerConfig,
    TwoTower,
    "handsell.retrieval.neural.two_tower_training:fit_two_tower",
    purpose="context and content matter, and many items are new",
    needs="interactions, content",
    order=4,
    job="handsell.jobs.train.distributed.two_tower:fit",
    min_events=5_000,
    auto_selectable=True,
)
