"""Scores of B requests as rows of a sparse matrix (B, I): top items, lookup, and storage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handsell.data.late_scipy import sparse
from handsell.retrieval.index.topk import fit_mask, pad_rows, select_top

PARTS = ("data", "indices", "indptr")


def select_top_entries(found: sparse.csr_matrix, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return items and scores (B, k) of the largest positive eligible entries of each row; columns must be sorted."""
    allowed = fit_mask(eligible, found.shape[1])
    rows = []
    for b in range(found.shape[0]):
        at = slice(found.indptr[b], found.indptr[b + 1])
        item, score = found.indices[at], found.data[at]
        may = allowed[b][item] & (score > 0)
        rows.append(select_top(item[may], score[may], k))
    return pad_rows(rows, k)


def read_entries(found: sparse.csr_matrix, items: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the entries (B, K) float32 at `items` (B, K), 0 where the row has none.

    NaN where an item is -1, beyond I, or not in `known` (I,) bool. Only one row at a time is made dense.
    """
    out = np.full(items.shape, np.nan, np.float32)
    row = np.zeros(found.shape[1], np.float32)
    inside = (items >= 0) & (items < len(row))
    for b in range(len(items)):
        at = slice(found.indptr[b], found.indptr[b + 1])
        row[found.indices[at]] = found.data[at]
        item = items[b][inside[b]]
        out[b][inside[b]] = np.where(known[item], row[item], np.nan)
        row[found.indices[at]] = 0
    return out


def save_rows(matrix: sparse.csr_matrix, path: Path) -> None:
    """Save a matrix as three .npy files in an existing folder."""
    for part in PARTS:
        np.save(path / f"{part}.npy", getattr(matrix, part))


def load_rows(path: Path, columns: int) -> sparse.csr_matrix:
    """Load a matrix saved by `save_rows`, memory mapped."""
    data, indices, indptr = (np.load(path / f"{part}.npy", mmap_mode="r") for part in PARTS)
    return sparse.csr_matrix((data, indices, indptr), (len(indptr) - 1, columns), copy=False)
