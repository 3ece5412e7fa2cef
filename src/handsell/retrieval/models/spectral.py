"""A graph filter on the user–item graph: what is smooth on it stays, the rest is damped; new users fold in.

With R̃ = D_U^-a R D_I^-b and its singular vectors V and values s, a history r scores items by

    r D_I^-b  V f(s) Vᵀ  D_I^b,      f(s) = s² / (s² + ridge · s₁²)

The ideal low-pass f = 1 (ridge 0) with a = b = ½ is the spectral part of GF-CF [shen2021]; [choi2023] blurs and
sharpens along the same axes; a ridge that fades out slowly is what ridge regression of R̃ on itself gives, and
keeps many more directions useful. D_I, the items' degrees, may enter the answer by another power than b.
Both sides share one (I, D) matrix of item vectors, so that search, index and storage are those of every embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy import sparse
from scipy.linalg import eigh, qr

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.like_matrix import build_like_matrix, raise_degrees, scale_matrix, sum_degrees

SPARE = 0.1  # share of directions sought beyond those kept: the last ones kept are found sooner
ROUNDS = 6  # products with R̃ᵀR̃ after the first look

# what to try, and where to begin, when the model is tuned on a validation part
SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "answer_exponent": (0.4, 0.3, 0.5),
    "item_exponent": (0.4, 0.5, 0.3),
    "ridge": (0.03, 0.1, 0.01),
    "user_exponent": (0.5, 0.3, 0.7),
    "embedding_size": (256, 512, 1024),  # last: what is found at the small size is kept for the large ones
}


class SpectralConfig(OptionalFoldIn):
    embedding_size: int = Field(256, ge=2, description="D, leading singular vectors kept")
    ridge: float = Field(
        0.03, ge=0, description="half-way point of the filter, a share of the largest squared value; 0: ideal"
    )
    user_exponent: float = Field(0.5, ge=0, le=1, description="a user's row is divided by their degree to this power")
    item_exponent: float = Field(0.5, ge=0, le=1, description="an item's column, likewise")
    answer_exponent: float = Field(0.5, ge=0, le=1, description="power of an item's degree in its answer")
    half_life_days: float = Field(28.0, gt=0, description="decay of history events at fold-in")
    seed: int = Field(0, description="of the randomized decomposition")


@dataclass(frozen=True)
class SpectralEncoder:
    """The sum of the history's item vectors, each by its vote and its scale."""

    vectors: np.ndarray  # (I, D) float32
    scale: np.ndarray  # (I,) float32, what a vote for the item is multiplied by
    weights: HistoryWeights

    def encode(self, requests: Requests) -> np.ndarray:
        item, weight = weigh_history(requests, self.weights, len(self.vectors))
        liked = (weight > 0).any(axis=1, keepdims=True)
        given = build_history_matrix(item, np.where(liked, weight, 0), len(self.vectors))
        given.data = given.data * self.scale[given.indices]
        return given @ self.vectors  # a sparse row is summed in order, whatever the batch

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "scale.npy", self.scale)
        (path / "encoder.json").write_text(json.dumps(asdict(self.weights)))

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> SpectralEncoder:
        weights = HistoryWeights(**json.loads((path / "encoder.json").read_text()))
        return cls(vectors, np.load(path / "scale.npy"), weights)


class Spectral(EmbeddingRetriever):
    name: ClassVar[str] = "spectral"
    encoder_type = SpectralEncoder


def fit_spectral(interactions: Interactions, config: SpectralConfig, content: object = None) -> Spectral:
    """Item vectors of D_I^(answer exponent) V √f(s); items that nobody liked stay unknown (zeros)."""
    ratings = build_like_matrix(interactions)
    by_item = sum_degrees(ratings, 0)
    graph = scale_matrix(
        ratings,
        raise_degrees(sum_degrees(ratings, 1), -config.user_exponent),
        raise_degrees(by_item, -config.item_exponent),
    )
    directions, values = find_leading_directions(graph, config.embedding_size, config.seed)
    kept = np.sqrt(values / (values + config.ridge * values.max(initial=0) + 1e-12))
    vectors = directions * kept * raise_degrees(by_item, config.answer_exponent)[:, None]
    index = VectorIndex.exact(vectors.astype(np.float32))
    scale = raise_degrees(by_item, -config.item_exponent - config.answer_exponent)
    return Spectral(SpectralEncoder(index.vectors, scale, HistoryWeights.from_config(config)), index)


def find_leading_directions(matrix: sparse.csr_matrix, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading right singular vectors (I, D) float32 and squared values (D,), largest first; zeros beyond the rank."""
    transposed = matrix.T.tocsr()
    return iterate_subspace(lambda q: transposed @ (matrix @ q), matrix.shape, count, seed)


def iterate_subspace(
    product: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Randomized subspace iteration [halko2011] on R̃ᵀR̃, of which only the product with an (I, K) matrix is asked."""
    items = shape[1]
    width = min(count + max(8, int(SPARE * count)), *shape)
    directions, values = np.zeros((items, count), np.float32), np.zeros(count)
    if width == 0:
        return directions, values
    basis = np.random.default_rng(seed).standard_normal((items, width), np.float32)
    for _ in range(ROUNDS + 1):
        basis = qr(product(basis), mode="economic", overwrite_a=True, check_finite=False)[0]
    image = product(basis)
    found, turn = eigh((basis.T @ image).astype(np.float64))
    found, turn = found[::-1][:count], turn[:, ::-1][:, :count]
    real = found > 1e-6 * max(found[0], 1e-12)
    directions[:, : len(found)] = np.where(real, basis @ turn.astype(np.float32), 0)
    values[: len(found)] = np.where(real, found, 0)
    return _fix_signs(directions), values


def _fix_signs(directions: np.ndarray) -> np.ndarray:
    """Each direction with its largest entry positive: a sign is free, and this one is the same everywhere."""
    peak = np.abs(directions).argmax(axis=0)
    return directions * np.where(directions[peak, np.arange(directions.shape[1])] < 0, -1, 1).astype(np.float32)


RETRIEVER = RetrieverPlugin(
    "spectral",
    SpectralConfig,
    Spectral,
    fit_spectral,
    purpose="sparse likes, the strongest single closed form there",
    needs="interactions",
    order=7,
    max_items=200_000,
    auto_selectable=True,
    search=SEARCH,
)
