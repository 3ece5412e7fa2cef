"""SASRec: a causal transformer that predicts the next item from the ordered history; inference in NumPy.

Sources: [kang2018] for the model, [klenitskiy2023] for the loss; training is in `neural/sasrec_training.py`. The input
vector of an item is its id embedding plus its projected content. The index has the same vectors, of unit length where
the logits are cosines. Inference computes only the last position of the last layer. New users need no training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from handsell.core.batches import History, Requests
from handsell.retrieval.config import NeuralSource, RetrieverPlugin
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.index.vector_index import VectorIndex

TINY = 1e-6  # least norm that divides: avoids division by zero

SEARCH: dict[str, tuple] = {
    "temperature": (0.05, 0.1, 0.0),
    "dropout": (0.3, 0.2, 0.5),
    "embedding_size": (64, 128),
}

Weights = Mapping[str, np.ndarray]


class SASRecConfig(NeuralSource):
    enabled: bool = Field(False, description="whether this source is fitted and queried")
    embedding_size: int = Field(64, ge=2, multiple_of=2, description="D, width of the transformer and of item vectors")
    layers: int = Field(2, ge=1, description="layers of the transformer")
    length: int = Field(50, ge=1, description="T, number of most recent events read; at most features.history_length")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout rate in training")
    temperature: float = Field(
        0.05, ge=0, description="divisor of the cosine of query and item; 0: inner products instead"
    )
    initial_vectors: Literal["random", "pairs"] = Field(
        "random", description="item vectors before training: random, or from pairs of likes up to 5 events apart"
    )
    negatives: int = Field(4096, ge=1, description="negatives drawn per step where there are more than 30 000 items")
    epochs: int = Field(30, ge=1, description="largest number of passes over the users' histories")
    patience: int = Field(5, ge=1, description="epochs without better validation NDCG@10 after which training stops")
    validation_users: int = Field(
        1000, ge=0, description="users per worker whose last like is held out for early stopping; 0: none"
    )
    batch_size: int = Field(1024, ge=1, description="likes per step")
    learning_rate: float = Field(1e-3, gt=0, description="learning rate of AdamW after warm-up, with cosine decay to 0")
    reg: float = Field(0.01, ge=0, description="weight decay, multiplied by the learning rate")
    seed: int = Field(0, description="random seed of the initial weights, the batch order and dropout")


@dataclass(frozen=True)
class SASRecEncoder:
    """The transformer, and the input vectors of all items.

    The weights define its shape: `position` (T, D) the number of events read; `cosine` (an empty array) exists where
    queries are unit vectors.
    """

    inputs: np.ndarray  # (I, D) float32; zeros for an unknown item
    weights: Weights

    def encode(self, requests: Requests) -> np.ndarray:
        """Return queries (B, D) float32; zeros for a request whose history has no likes."""
        out = np.zeros((len(requests), self.inputs.shape[1]), np.float32)
        for b in range(len(requests)):  # one at a time: no padding, and results do not depend on the batch
            item, liked = self._select_events(requests.history, requests.time[b], b)
            if liked.any():
                out[b] = self._compute_query(item, liked)
        return out

    def _select_events(self, history: History, time: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the events of row b that are used, oldest first: items (L,) and whether liked (L,), L ≤ T."""
        item = history.item[b]
        valid = (item >= 0) & (item < len(self.inputs)) & (history.time[b] < time) & (history.weight[b] != 0)
        valid[valid] = self.inputs[item[valid]].any(axis=1)
        most = len(self.weights["position"])
        return item[valid][-most:], (history.weight[b] > 0)[valid][-most:]

    def _compute_query(self, item: np.ndarray, liked: np.ndarray) -> np.ndarray:
        """Return the query (D,) for the item after events (L,)."""
        w = self.weights
        x = build_sequence_inputs(self.inputs[item], liked, w)
        layers = sum(name.endswith("qkv.weight") for name in w)
        for n in range(layers):
            x = apply_layer(x, w, f"layers.{n}", last_only=n == layers - 1)
        query = apply_norm(x[-1:], w, "norm")[0]
        return query / np.maximum(np.linalg.norm(query), TINY) if "cosine" in w else query

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "inputs.npy", self.inputs)
        save_file({name: np.ascontiguousarray(w) for name, w in self.weights.items()}, path / "layers.safetensors")

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> SASRecEncoder:
        return cls(np.load(path / "inputs.npy", mmap_mode="r"), load_file(path / "layers.safetensors"))


def build_sequence_inputs(vectors: np.ndarray, liked: np.ndarray, w: Weights) -> np.ndarray:
    """Return the first layer's inputs (L, D): item directions, negated for dislikes, plus positions from the oldest."""
    scaled = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY) * np.sqrt(vectors.shape[1])
    felt = np.where(liked[:, None], scaled, w["disliked"] - scaled)
    return (felt + w["position"][: len(vectors)]).astype(np.float32)


def apply_layer(x: np.ndarray, w: Weights, name: str, last_only: bool) -> np.ndarray:
    """Apply a pre-norm layer [xiong2020] to positions (L, D); with `last_only` compute only the last one, (1, D)."""
    q, k, v = np.split(apply_linear(apply_norm(x, w, f"{name}.norm1"), w, f"{name}.qkv"), 3, axis=1)
    rows = slice(len(x) - 1 if last_only else 0, None)
    logits = q[rows] @ k.T / np.float32(np.sqrt(x.shape[1]))
    later = np.arange(len(x))[None, :] > np.arange(len(x))[rows, None]
    logits = np.where(later, -np.inf, logits)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    x = x[rows] + apply_linear(share @ v, w, f"{name}.out")
    hidden = apply_linear(apply_norm(x, w, f"{name}.norm2"), w, f"{name}.wide")
    return x + apply_linear(np.maximum(hidden, 0), w, f"{name}.narrow")


def apply_linear(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def apply_norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    x = x - x.mean(axis=1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


class SASRec(EmbeddingRetriever):
    name: ClassVar[str] = "sasrec"
    encoder_type = SASRecEncoder


def build_sasrec(weights: Weights, content: Content | None, trained: np.ndarray, cosine: bool) -> SASRec:
    """Build the retriever from all trained weights; items outside `trained` (I,) bool have content only."""
    inputs = weights["embedding"] * trained[:, None]
    if content is not None and "projection.weight" in weights:
        inputs = inputs + content.vectors @ weights["projection.weight"].T
    inputs = np.ascontiguousarray(inputs, np.float32)
    layers = {name: w for name, w in weights.items() if name not in ("embedding", "projection.weight")}
    if cosine:
        layers["cosine"] = np.zeros(0, np.float32)
    vectors = inputs / np.maximum(np.linalg.norm(inputs, axis=1, keepdims=True), TINY) if cosine else inputs
    return SASRec(SASRecEncoder(inputs, layers), VectorIndex.exact(vectors))


RETRIEVER = RetrieverPlugin(
    "sasrec",
    SASRecConfig,
    SASRec,
    "handsell.retrieval.neural.sasrec_training:fit_sasrec",
    purpose="the order of events in long histories matters",
    needs="order of events, minutes of training",
    order=5,
    job="handsell.jobs.train.distributed.sasrec:fit",
    search=SEARCH,
)
