"""The user–item matrix of likes and its degree scaling, for the linear models."""

from __future__ import annotations

import numpy as np

from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse


def build_like_matrix(interactions: Interactions) -> sparse.csr_matrix:
    """Build the matrix (U, I) float32 of log2(1 + summed positive weight): 1 for one event of weight 1."""
    matrix = interactions.positives.matrix()
    matrix.sum_duplicates()
    matrix.data = np.log2(1 + matrix.data)
    return matrix


def sum_degrees(matrix: sparse.csr_matrix, axis: int) -> np.ndarray:
    """Return the sums float64 of a (U, I) matrix: per item for axis 0, per user for axis 1."""
    return np.asarray(matrix.sum(axis=axis, dtype=np.float64)).ravel()


def raise_degrees(degree: np.ndarray, exponent: float) -> np.ndarray:
    """Return degree ^ exponent, float32; 0 where the degree is 0."""
    safe = np.where(degree > 0, degree, 1)
    return np.where(degree > 0, safe**exponent, 0).astype(np.float32)


def scale_matrix(matrix: sparse.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> sparse.csr_matrix:
    """Return diag(rows) · matrix · diag(columns)."""
    out = matrix.copy()
    out.data = matrix.data * np.repeat(rows, np.diff(matrix.indptr)) * columns[matrix.indices]
    return out
