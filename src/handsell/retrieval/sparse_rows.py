"""Scores of B requests as the rows of a sparse matrix: items and scores out of it, and how such a matrix is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import sparse

from handsell.retrieval.index.topk import padded, top_items, within

PARTS = ("data", "indices", "indptr")


def best_of_rows(found: sparse.csr_matrix, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items and scores (B, k) of the best positive eligible entries of (B, I) rows with sorted columns."""
    allowed = within(eligible, found.shape[1])
    rows = []
    for b in range(found.shape[0]):
        at = slice(found.indptr[b], found.indptr[b + 1])
        item, score = found.indices[at], found.data[at]
        may = allowed[b][item] & (score > 0)
        rows.append(top_items(item[may], score[may], k))
    return padded(rows, k)


def scores_at(found: sparse.csr_matrix, items: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(B, K) float32 entries of (B, I) rows with sorted columns, 0 where there is none.

    NaN where an item is -1, beyond I, or not known (I,). One row at a time is made dense, never B of them.
    """
    out = np.full(items.shape, np.nan, np.float32)
    row = np.zeros(found.shape[1], np.float32)
    inside = (items >= 0) & (items < len(row))
    for b in range(len(items)):
        at = slice(found.indptr[b], found.indptr[b + 1])
        row[found.indices[at]] = found.data[at]
        asked = items[b][inside[b]]
        out[b][inside[b]] = np.where(known[asked], row[asked], np.nan)
        row[found.indices[at]] = 0
    return out


def save_rows(matrix: sparse.csr_matrix, path: Path) -> None:
    """Three .npy files in a folder that is there."""
    for part in PARTS:
        np.save(path / f"{part}.npy", getattr(matrix, part))


def load_rows(path: Path, columns: int) -> sparse.csr_matrix:
    """What `save_rows` kept, mapped into memory."""
    data, indices, indptr = (np.load(path / f"{part}.npy", mmap_mode="r") for part in PARTS)
    return sparse.csr_matrix((data, indices, indptr), (len(indptr) - 1, columns), copy=False)
