"""The users' likes as a sparse matrix, and its degree scaling: what the linear models start from."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from handsell.data.interactions import Interactions


def likes(interactions: Interactions) -> sparse.csr_matrix:
    """(U, I) float32 log2(1 + the pair's positive weight): 1 for one event of weight 1."""
    matrix = interactions.positives.matrix()
    matrix.sum_duplicates()
    matrix.data = np.log2(1 + matrix.data)
    return matrix


def degrees(matrix: sparse.csr_matrix, axis: int) -> np.ndarray:
    """Sums of a (U, I) matrix: of each item for axis 0, of each user for axis 1; float64."""
    return np.asarray(matrix.sum(axis=axis, dtype=np.float64)).ravel()


def power(degree: np.ndarray, exponent: float) -> np.ndarray:
    """degree^exponent, float32; zero where the degree is zero."""
    safe = np.where(degree > 0, degree, 1)
    return np.where(degree > 0, safe**exponent, 0).astype(np.float32)


def scaled(matrix: sparse.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> sparse.csr_matrix:
    """diag(rows) · matrix · diag(columns)."""
    out = matrix.copy()
    out.data = matrix.data * np.repeat(rows, np.diff(matrix.indptr)) * columns[matrix.indices]
    return out
