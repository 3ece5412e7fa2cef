"""A low-pass filter on the user–item graph (spectral collaborative filtering).

With R̃ = D_U^-a R D_I^-b, its right singular vectors V and singular values s, the scores of a history r are

    r D_I^-b  V f(s) Vᵀ  D_I^b,      f(s) = s² / (s² + ridge · s₁²)

The ideal low-pass filter f = 1 (ridge 0) with a = b = ½ is the spectral part of GF-CF [shen2021]; [choi2023] combines
such filters. A ridge above 0 is ridge regression of R̃ on itself, and makes use of many more directions. The last
factor D_I may have another exponent than b. Both sides use one matrix (I, D) of item vectors, which is stored in the
index.

PureSVD [cremonesi2010] (`svd`) is the special case without degree scaling and without ridge: the history is projected
on the leading singular vectors of the user–item matrix.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import linalg, sparse
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.like_matrix import build_like_matrix, raise_degrees, scale_matrix, sum_degrees

OVERSAMPLING = 0.1  # share of directions computed beyond those kept; the last ones kept converge sooner
ROUNDS = 6  # subspace iterations after the first

SPECTRAL_SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "answer_exponent": (0.4, 0.3, 0.5),
    "item_exponent": (0.4, 0.5, 0.3),
    "ridge": (0.03, 0.1, 0.01),
    "user_exponent": (0.5, 0.3, 0.7),
    "embedding_size": (256, 512, 1024),  # last: the other keys are tuned at the small size
}
SVD_SEARCH: dict[str, tuple] = {"half_life_days": (1e6, 0.5, 2.0, 14.0), "embedding_size": (64, 32, 128, 256)}


class SpectralConfig(OptionalFoldIn):
    embedding_size: int = Field(256, ge=2, description="D, number of leading singular vectors")
    ridge: float = Field(
        0.03, ge=0, description="ridge of the filter as a share of the largest squared singular value; 0: ideal filter"
    )
    user_exponent: float = Field(0.5, ge=0, le=1, description="rows are divided by the user's degree to this exponent")
    item_exponent: float = Field(
        0.5, ge=0, le=1, description="columns are divided by the item's degree to this exponent"
    )
    answer_exponent: float = Field(
        0.5, ge=0, le=1, description="scores are multiplied by the item's degree to this exponent"
    )
    half_life_days: float = Field(28.0, gt=0, description="half-life of history events by age")
    seed: int = Field(0, description="random seed of the decomposition")


class SVDConfig(OptionalFoldIn):
    embedding_size: int = Field(64, ge=2, description="D, number of leading singular vectors")
    half_life_days: float = Field(28.0, gt=0, description="half-life of history events by age")
    seed: int = Field(0, description="random seed of the decomposition")


@dataclass(frozen=True)
class SpectralEncoder:
    """The sum of the history's item vectors, multiplied by their weights and scales."""

    vectors: np.ndarray  # (I, D) float32
    scale: np.ndarray  # (I,) float32, factor of the item's weight in the history
    weights: HistoryWeights

    def encode(self, requests: Requests) -> np.ndarray:
        item, weight = weigh_history(requests, self.weights, len(self.vectors))
        liked = (weight > 0).any(axis=1, keepdims=True)
        history = build_history_matrix(item, np.where(liked, weight, 0), len(self.vectors))
        history.data = history.data * self.scale[history.indices]
        used, place = np.unique(history.indices, return_inverse=True)
        history = sparse.csr_matrix((history.data, place, history.indptr), (len(requests), len(used)))
        return history @ self.vectors[used]  # a sparse row is summed in order, independent of the batch

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
    """Compute the item vectors D_I^(answer exponent) V √f(s); items without likes stay unknown (zeros)."""
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
    """Return the leading right singular vectors (I, D) float32 and squared values (D,); 0 beyond the rank."""
    transposed = matrix.T.tocsr()
    return iterate_subspace(lambda q: transposed @ (matrix @ q), matrix.shape, count, seed)


def iterate_subspace(
    product: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run randomized subspace iteration [halko2011] on R̃ᵀR̃, given as its product with a matrix (I, K).

    `shape` is (U, I). Returns as `find_leading_directions`.
    """
    items = shape[1]
    width = min(count + max(8, int(OVERSAMPLING * count)), *shape)
    directions, values = np.zeros((items, count), np.float32), np.zeros(count)
    if width == 0:
        return directions, values
    basis = np.random.default_rng(seed).standard_normal((items, width), np.float32)
    for _ in range(ROUNDS + 1):
        basis = linalg.qr(product(basis), mode="economic", overwrite_a=True, check_finite=False)[0]
    image = product(basis)
    found, turn = linalg.eigh((basis.T @ image).astype(np.float64))
    found, turn = found[::-1][:count], turn[:, ::-1][:, :count]
    real = found > 1e-6 * max(found[0], 1e-12)
    directions[:, : len(found)] = np.where(real, basis @ turn.astype(np.float32), 0)
    values[: len(found)] = np.where(real, found, 0)
    return _fix_signs(directions), values


def _fix_signs(directions: np.ndarray) -> np.ndarray:
    """Choose the sign of each direction so that its largest entry is positive, for a reproducible result."""
    peak = np.abs(directions).argmax(axis=0)
    return directions * np.where(directions[peak, np.arange(directions.shape[1])] < 0, -1, 1).astype(np.float32)


class SVD(Spectral):
    name: ClassVar[str] = "svd"


def fit_svd(interactions: Interactions, config: SVDConfig, content: object = None) -> SVD:
    """Compute the right singular vectors as item vectors."""
    plain = SpectralConfig(
        embedding_size=config.embedding_size,
        user_exponent=0, item_exponent=0, answer_exponent=0, ridge=0,
        seed=config.seed, **{name: getattr(config, name) for name in config.HISTORY_KEYS},
    )  # fmt: skip
    fitted = fit_spectral(interactions, plain)
    return SVD(fitted.encoder, fitted.index)


SPECTRAL_PLUGIN = RetrieverPlugin(
    "spectral",
    SpectralConfig,
    Spectral,
    fit_spectral,
    purpose="likes are sparse; the best closed-form model for them",
    needs="interactions",
    order=7,
    max_items=200_000,
    auto_selectable=True,
    search=SPECTRAL_SEARCH,
)

SVD_PLUGIN = RetrieverPlugin(
    "svd",
    SVDConfig,
    SVD,
    fit_svd,
    purpose="a simple baseline by vectors is needed",
    needs="interactions",
    order=8,
    search=SVD_SEARCH,
)
