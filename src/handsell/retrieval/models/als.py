"""Matrix factorization of implicit feedback by alternating least squares (ALS).

Source: [hu2008]: a pair has preference 1 where its summed weight is positive, else 0, and confidence 1 + alpha log(1 +
|weight|); every unseen pair has preference 0 and confidence 1. Factors start from the singular vectors of the
degree-scaled matrix, which needs far fewer sweeps than a random start. The penalty grows with the evidence of a row
[rendle2022]. A half sweep takes a few steps of conjugate gradients for each row [takacs2011], or solves it exactly.

User factors are not stored: a request's user vector is the same least-squares problem, solved exactly for the weighted
history.
`retrieval/als_blocks.py` has that step, `jobs/train/distributed/als.py` the same fit on several nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.als_blocks import Penalty, compute_gram, count_threads, diagonalize, solve_row, update_block
from handsell.retrieval.config import FoldInSource, RetrieverPlugin
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.history_weights import HistoryWeights, weigh_history
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.like_matrix import raise_degrees, scale_matrix, sum_degrees
from handsell.retrieval.models.spectral import find_leading_directions

SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "reg": (0.001, 0.0003, 0.003, 0.01),
    "alpha": (10.0, 30.0, 1.0, 100.0, 3.0),
    "frequency_exponent": (1.0, 0.5),
    "embedding_size": (128, 256, 512),
}


class ALSConfig(FoldInSource):
    embedding_size: int = Field(64, ge=2, description="D, factors per user and item")
    epochs: int = Field(8, ge=1, description="sweeps over users and items")
    cg_steps: int = Field(
        3, ge=0, description="conjugate gradient steps per row and half sweep; 0: solve each row exactly"
    )
    reg: float = Field(0.001, gt=0, description="L2 penalty of factors per unit of evidence of a row")
    frequency_exponent: float = Field(
        1.0, ge=0, description="exponent of a row's evidence in its penalty; 0: the same penalty for all rows"
    )
    alpha: float = Field(3.0, gt=0, description="added confidence of a seen pair per unit of log(1 + event weight)")
    blocks: int = Field(1, ge=1, description="Ray tasks per half sweep; 1: one task for the whole fit")
    half_life_days: float = Field(28.0, gt=0, description="half-life of history events by age")
    seed: int = Field(0, description="random seed of the initial factors")

    @property
    def distributed(self) -> bool:
        return self.blocks > 1


@dataclass(frozen=True)
class ALSEncoder:
    """Solves (Λ + penalty + Σ (c - 1) y yᵀ) x = Σ c p y over the history's items y; Λ is the diagonal Gram matrix."""

    vectors: np.ndarray  # (I, D) float32, rotated so that YᵀY is diagonal
    values: np.ndarray  # (D,) float32, diagonal of YᵀY
    penalty: Penalty
    alpha: float
    weights: HistoryWeights

    def encode(self, requests: Requests) -> np.ndarray:
        item, weight = weigh_history(requests, self.weights, len(self.vectors))
        out = np.zeros((len(requests), self.vectors.shape[1]), np.float32)
        for b in np.flatnonzero((weight > 0).any(axis=1)):
            used = weight[b] != 0  # not where a like and a dislike cancel
            added = raise_confidence(weight[b, used], self.alpha)
            out[b] = solve_row(added, self.vectors[item[b, used]], self.values, self.penalty)
        return out

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "values.npy", self.values)
        about = {"alpha": self.alpha, "weights": asdict(self.weights), "penalty": asdict(self.penalty)}
        (path / "encoder.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> ALSEncoder:
        about = json.loads((path / "encoder.json").read_text())
        penalty, weights = Penalty(**about["penalty"]), HistoryWeights(**about["weights"])
        return cls(vectors, np.load(path / "values.npy"), penalty, about["alpha"], weights)


class ALS(EmbeddingRetriever):
    name: ClassVar[str] = "als"
    encoder_type = ALSEncoder


def fit_als(interactions: Interactions, config: ALSConfig, content: object = None) -> ALS:
    """Fit item factors to the summed event weights; items without likes stay unknown (zeros)."""
    *_, (items, by_user) = iterate_sweeps(interactions, config)
    return build_als(items, by_user, config)


def iterate_sweeps(interactions: Interactions, config: ALSConfig) -> Iterator[tuple[np.ndarray, Penalty]]:
    """Yield the item factors (I, D) after each sweep over users and items, and the penalty of users."""
    pairs = compute_confidence(sum_weights(interactions), config.alpha)
    by_items = pairs.T.tocsr()
    by_user, by_item = build_penalties(np.diff(pairs.indptr), np.diff(by_items.indptr), config)
    items = initialize_factors(pairs, config)
    users, threads = np.zeros((pairs.shape[0], items.shape[1]), np.float32), count_threads()
    for _ in range(config.epochs):
        total = compute_gram(items, threads)
        users = update_block(pairs, items, total, by_user, users, config.cg_steps, threads)
        total = compute_gram(users, threads)
        items = update_block(by_items, users, total, by_item, items, config.cg_steps, threads)
        yield items, by_user


def sum_weights(interactions: Interactions) -> sparse.csr_matrix:
    """Return the sums of event weights (U, I) float32, without the pairs whose likes and dislikes cancel."""
    matrix = interactions.matrix()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def compute_confidence(weight: sparse.csr_matrix, alpha: float) -> sparse.csr_matrix:
    """Return the added confidence alpha log(1 + |weight|), with the sign of the weight."""
    out = weight.copy()
    out.data = raise_confidence(weight.data, alpha)
    return out


def raise_confidence(weight: np.ndarray, alpha: float) -> np.ndarray:
    """Return alpha log(1 + |weight|) (N,) float32, with the sign of the weight."""
    return (np.sign(weight) * alpha * np.log1p(np.abs(weight))).astype(np.float32)


def build_penalties(user_counts: np.ndarray, item_counts: np.ndarray, config: ALSConfig) -> tuple[Penalty, Penalty]:
    """Build the penalties of users and of items from their numbers of pairs; rows without pairs are left out."""
    sides = [counts[counts > 0] for counts in (user_counts, item_counts)]
    users, items = (
        Penalty.from_counts(counts, len(others), config.alpha, config.reg, config.frequency_exponent)
        for counts, others in (sides, reversed(sides))
    )
    return users, items


def initialize_factors(pairs: sparse.csr_matrix, config: ALSConfig) -> np.ndarray:
    """Return singular vectors (I, D) of the degree-scaled likes, scaled by the roots of their singular values."""
    graph = build_like_graph(pairs, raise_degrees(sum_degrees(pairs.maximum(0), 0), -0.5))
    return scale_directions(*find_leading_directions(graph, config.embedding_size, config.seed))


def build_like_graph(pairs: sparse.csr_matrix, item_scale: np.ndarray) -> sparse.csr_matrix:
    """Return the likes of pairs (b, I), divided by the roots of the users' degrees, multiplied by item_scale (I,)."""
    liked = sparse.csr_matrix((np.maximum(pairs.data, 0), pairs.indices, pairs.indptr), shape=pairs.shape)
    return scale_matrix(liked, raise_degrees(sum_degrees(liked, 1), -0.5), item_scale)


def scale_directions(directions: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Scale singular vectors (I, D) by the roots of their singular values, given as squared values (D,)."""
    return directions * (squares**0.25).astype(np.float32)


def build_als(factors: np.ndarray, by_user: Penalty, config: ALSConfig) -> ALS:
    """Build the model from item factors, rotated so that their Gram matrix is diagonal; this changes no score."""
    values, turn = diagonalize(compute_gram(factors))
    index = VectorIndex.exact(np.where(factors.any(axis=1, keepdims=True), factors @ turn, 0))
    return ALS(ALSEncoder(index.vectors, values, by_user, config.alpha, HistoryWeights.from_config(config)), index)


RETRIEVER = RetrieverPlugin(
    "als",
    ALSConfig,
    ALS,
    fit_als,
    purpose="likes are sparse, there are many items, and vectors must be small",
    needs="interactions",
    order=3,
    job="handsell.jobs.train.distributed.als:fit",
    auto_selectable=True,
    search=SEARCH,
)
