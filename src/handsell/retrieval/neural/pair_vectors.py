"""Item vectors from pairs of near events, as a start of training.

A pair's value is its positive pointwise mutual information [church1990, levy2014]; an item's vector is its row of the
leading eigenvectors, scaled by the roots of their absolute eigenvalues.
"""

from __future__ import annotations

import numpy as np
import torch

from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.neural.sasrec_rows import SequenceRows

STEPS = 5  # largest distance of a pair in a user's likes
HALF_LIFE = 2.0  # of a pair by distance, in events
ROUNDS = 6  # subspace iterations
SPARE = 20  # directions computed beyond those kept; the last ones kept converge sooner


def set_initial_vectors(embedding: torch.Tensor, rows: SequenceRows) -> None:
    """Replace the random vectors (I, D) by those of pairs if the config says so, with the mean norm of the random ones.

    Items in no pair keep their random vectors. With several workers, all start from those of the first one's users.
    """
    config = rows.config
    if config.initial_vectors == "pairs":
        vectors = compute_pair_vectors(rows.events, config.embedding_size, np.random.default_rng(config.seed))
        paired = torch.from_numpy(vectors.any(axis=1))
        with torch.no_grad():
            embedding[paired] = torch.from_numpy(vectors)[paired] * embedding.norm(dim=1).mean()


def compute_pair_vectors(interactions: Interactions, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors (I, size) float32 of the items; zeros for an item that is in no pair.

    Memory is that of a sparse matrix with up to ten entries per like, and a few dense arrays (I, size).
    """
    information = compute_information(interactions)
    width = min(size + SPARE, interactions.n_items)
    basis = rng.standard_normal((interactions.n_items, width)).astype(np.float32)
    for _ in range(ROUNDS):
        basis, _ = np.linalg.qr(information @ basis)
    values, rotation = np.linalg.eigh(basis.T @ (information @ basis))
    kept = np.argsort(-np.abs(values))[:size]
    vectors = (basis @ rotation[:, kept]) * np.sqrt(np.abs(values[kept]))
    vectors[information.getnnz(axis=1) == 0] = 0  # not the rounding errors of an empty row
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    out = np.zeros((interactions.n_items, size), np.float32)
    out[:, : len(kept)] = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return out


def compute_information(interactions: Interactions) -> sparse.csr_matrix:
    """Return the positive pointwise mutual information (I, I) float32 of likes up to STEPS apart, either way."""
    likes = interactions.positives
    shape = (likes.n_items, likes.n_items)
    pairs = sparse.csr_matrix(shape)
    for steps in range(1, STEPS + 1):
        first = np.flatnonzero(likes.user[:-steps] == likes.user[steps:])
        near = np.full(len(first), 2.0 ** ((1 - steps) / HALF_LIFE))
        pairs = pairs + sparse.csr_matrix((near, (likes.item[first], likes.item[first + steps])), shape)
    pairs = (pairs + pairs.T).tocoo()
    count = np.asarray(pairs.sum(axis=1)).ravel()
    value = np.log(pairs.data * count.sum() / (count[pairs.row] * count[pairs.col]))
    kept = value > 0
    return sparse.csr_matrix((value[kept].astype(np.float32), (pairs.row[kept], pairs.col[kept])), shape)
