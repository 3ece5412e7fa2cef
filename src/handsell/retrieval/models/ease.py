"""EASE [steck2019]: item–item weights that best reconstruct each user's likes from their other likes, in closed form.

With G = R̃ᵀR̃ + reg and P = G⁻¹ the weights are B_ij = -P_ij / P_jj, zero on the diagonal. R̃ = D_U^-a R D_I^-b:
exponents above 0 reduce the influence of active users and popular items. The scores of a history r are r D_I^-b B
D_I^x; x = b reverts the scaling, a smaller x lowers popular items.

Fitting needs a dense matrix of the fitted items, so that only the `max_items` most liked items are fitted; the others
are unknown to this source. The strongest weights of each item are stored as a sparse matrix.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.data.interactions import Interactions
from handsell.data.late_scipy import linalg, sparse
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.history_weights import HistoryWeights
from handsell.retrieval.like_matrix import build_like_matrix, raise_degrees, scale_matrix, sum_degrees
from handsell.retrieval.models.item_knn import ItemKNN

SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "reg": (1000.0, 500.0, 250.0, 2000.0, 100.0),
    "item_exponent": (0.2, 0.0, 0.4),
    "answer_exponent": (0.1, 0.0, 0.2, 0.4),
    "user_exponent": (0.4, 0.2, 0.0, 0.6),
}


class EASEConfig(OptionalFoldIn):
    reg: float = Field(300.0, gt=0, description="L2 penalty of the item–item weights")
    user_exponent: float = Field(0.0, ge=0, le=1, description="rows are divided by the user's degree to this exponent")
    item_exponent: float = Field(
        0.0, ge=0, le=1, description="columns are divided by the item's degree to this exponent"
    )
    answer_exponent: float = Field(
        0.0, ge=0, le=1, description="scores are multiplied by the item's degree to this exponent"
    )
    neighbors: int = Field(1_000, ge=1, description="strongest weights kept per item")
    max_items: int = Field(
        20_000, ge=1, description="number of most liked items that are fitted; others are unknown to this source"
    )
    half_life_days: float = Field(28.0, gt=0, description="half-life of history events by age")


class EASE(ItemKNN):
    """Item–item weights as a sparse matrix (I, I), applied as the neighbors of `ItemKNN`."""

    name: ClassVar[str] = "ease"


def fit_ease(interactions: Interactions, config: EASEConfig, content: object = None) -> EASE:
    """Solve for the weights between the most liked items; `reg` is relative to squared degrees for all exponents."""
    ratings = build_like_matrix(interactions)
    popularity = sum_degrees(ratings, 0)
    items = np.sort(np.argsort(-popularity, kind="stable")[: config.max_items])
    items = items[popularity[items] > 0]
    touched = np.zeros(interactions.n_items, bool)
    touched[items] = True
    if not len(items):
        empty = sparse.csr_matrix((interactions.n_items, interactions.n_items), dtype=np.float32)
        return EASE(empty, touched, HistoryWeights.from_config(config))
    weights = _solve_weights(ratings[:, items], config)
    return EASE(
        _keep_strongest(weights, items, interactions.n_items, config.neighbors),
        touched,
        HistoryWeights.from_config(config),
    )


def _solve_weights(ratings: sparse.csr_matrix, config: EASEConfig) -> np.ndarray:
    """Return the weights (J, J) float32 of the J fitted items; entry (i, j) is the weight from i to j."""
    by_item, by_user = sum_degrees(ratings, 0), sum_degrees(ratings, 1)
    divide = raise_degrees(by_item, -config.item_exponent)
    graph = scale_matrix(ratings, raise_degrees(by_user, -config.user_exponent), divide)
    gram = np.zeros((graph.shape[1], graph.shape[1]), np.float32)
    transposed = graph.T.tocsr()
    for start in range(0, len(gram), 1024):  # in blocks: the sparse product of all items would double the memory
        gram[start : start + 1024] = (transposed[start : start + 1024] @ graph).toarray()
    gram[np.diag_indices_from(gram)] += config.reg * _compute_scale(ratings, graph)
    inverse = _invert(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights * divide[:, None] * raise_degrees(by_item, config.answer_exponent)


def _compute_scale(ratings: sparse.csr_matrix, graph: sparse.csr_matrix) -> float:
    """Return the ratio of the squared sums of the scaled and the unscaled matrix, so that `reg` is comparable."""
    return float((graph.data**2).sum(dtype=np.float64) / (ratings.data**2).sum(dtype=np.float64))


def _invert(matrix: np.ndarray) -> np.ndarray:
    """Invert a symmetric positive definite matrix; overwrites it."""
    factor, _ = linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    inverse, _ = linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    lower = np.tril(inverse)
    return lower + np.tril(lower, -1).T


def _keep_strongest(weights: np.ndarray, items: np.ndarray, n_items: int, keep: int) -> sparse.csr_matrix:
    """Return the `keep` largest absolute weights of each row as a sparse matrix (I, I)."""
    rows, columns, data = [], [], []
    for i, row in enumerate(weights):
        chosen = np.flatnonzero(row)
        if len(chosen) > keep:
            chosen = np.sort(np.argpartition(np.abs(row), len(row) - keep)[-keep:])
        rows.append(np.full(len(chosen), items[i]))
        columns.append(items[chosen])
        data.append(row[chosen])
    shape = (n_items, n_items)
    triple = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    matrix = sparse.csr_matrix(triple, shape=shape, dtype=np.float32)
    matrix.sort_indices()
    return matrix


RETRIEVER = RetrieverPlugin(
    "ease",
    EASEConfig,
    EASE,
    fit_ease,
    purpose="likes are dense, on up to about ten thousand items",
    needs="interactions, memory for items²",
    order=9,
    max_items=15_000,
    auto_selectable=True,
    search=SEARCH,
)
