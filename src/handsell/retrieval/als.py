"""Matrix factorisation of implicit feedback; a user is folded in from the history at request time.

Source: [hu2008]: a pair has preference 1 where the summed weight is positive, else 0, and confidence
1 + alpha log(1 + |weight|). The items' side is fitted by `implicit` ([frederickson2017]); the users' side is
never stored: the user's vector is the same least-squares step, solved for the decayed votes of the request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import sparse

from handsell.core.batches import NONE, Requests
from handsell.core.config.retrieval import ALSConfig
from handsell.data.interactions import Interactions
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.index import VectorIndex
from handsell.retrieval.votes import votes


@dataclass(frozen=True)
class ALSEncoder:
    """Solves (YᵀY + reg + Σ (c - 1) y yᵀ) x = Σ c p y over the items y of the history."""

    vectors: np.ndarray  # (I, D) float32, Y
    gram: np.ndarray  # (D, D) float64, YᵀY + reg
    alpha: float
    half_life_days: float

    def encode(self, requests: Requests) -> np.ndarray:
        item, weight = votes(requests, self.half_life_days, len(self.vectors))
        out = np.zeros((len(requests), self.vectors.shape[1]), np.float32)
        for b in np.flatnonzero((weight > 0).any(axis=1)):  # one at a time: bits do not depend on the batch
            out[b] = self._solve(item[b][item[b] != NONE], weight[b][item[b] != NONE])
        return out

    def _solve(self, item: np.ndarray, weight: np.ndarray) -> np.ndarray:
        y = self.vectors[item].astype(np.float64)  # (T, D)
        extra = confidence(weight, self.alpha) - 1
        right = ((extra + 1) * (weight > 0)) @ y
        return np.linalg.solve(self.gram + (y * extra[:, None]).T @ y, right)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "gram.npy", self.gram)
        about = {"alpha": self.alpha, "half_life_days": self.half_life_days}
        (path / "encoder.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> ALSEncoder:
        return cls(vectors, np.load(path / "gram.npy"), **json.loads((path / "encoder.json").read_text()))


class ALS(EmbeddingRetriever):
    name: ClassVar[str] = "als"
    encoder_type = ALSEncoder


def fit_als(interactions: Interactions, config: ALSConfig, content: object = None) -> ALS:
    """Item factors from the summed event weights; items that nobody liked stay unknown (zeros)."""
    matrix = interactions.matrix()
    matrix.eliminate_zeros()
    liked = np.bincount(matrix.indices[matrix.data > 0], minlength=interactions.n_items) > 0
    vectors = np.zeros((interactions.n_items, config.embedding_size), np.float32)
    if liked.any():
        vectors[liked] = _item_factors(matrix, config)[liked]
    wide = vectors.astype(np.float64)
    gram = wide.T @ wide + config.reg * np.eye(config.embedding_size)
    index = VectorIndex.exact(vectors)
    return ALS(ALSEncoder(index.vectors, gram, config.alpha, config.half_life_days), index)


def confidence(weight: np.ndarray, alpha: float) -> np.ndarray:
    """1 + alpha log(1 + |weight|): the hundredth listen says less than the first."""
    return 1 + alpha * np.log1p(np.abs(weight.astype(np.float64)))


def _item_factors(matrix: sparse.csr_matrix, config: ALSConfig) -> np.ndarray:
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # implicit reads a negative entry as preference 0 with that confidence
    signed = matrix.copy()
    signed.data = (np.sign(matrix.data) * confidence(matrix.data, config.alpha)).astype(np.float32)
    with threadpool_limits(1):
        solver = AlternatingLeastSquares(
            factors=config.embedding_size,
            regularization=config.reg,
            alpha=1.0,  # already in the entries
            iterations=config.epochs,
            num_threads=1,
            random_state=config.seed,
        )
        solver.fit(signed, show_progress=False)
    return solver.item_factors
