"""Least-squares steps of ALS over blocks of rows: pure functions, called in one process or in Ray tasks.

A block is a sparse (b, J) matrix of the added confidences c - 1 of its rows' pairs, negative for a dislike (preference
0 with that confidence). A row's factors x minimize  Σ_j c_j (p_j - x·y_j)² + penalty |x|²  over all J.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

FLOATS_AT_ONCE = 4_000_000  # bound of the gathered factors of one stack of rows


@dataclass(frozen=True)
class Penalty:
    """L2 penalty of a row with n pairs: size · ((n + unseen) / typical)^exponent, the scaling of [rendle2022].

    `unseen` is the confidence of all unseen pairs of a row, in units of one seen pair, so that n + unseen is the row's
    evidence. `typical` is its mean over the rows: the mean penalty hardly depends on the exponent.
    """

    size: float
    exponent: float
    unseen: float
    typical: float

    @classmethod
    def from_counts(cls, counts: np.ndarray, others: int, alpha: float, reg: float, exponent: float) -> Penalty:
        """Build from the numbers of pairs of the rows, of `others` possible ones, and `reg` per unit of evidence."""
        unseen = others / alpha
        typical = (float(counts.mean()) if len(counts) else 0.0) + unseen or 1.0
        return cls(reg * alpha * typical, exponent, unseen, typical)

    def for_counts(self, counts: np.ndarray) -> np.ndarray:
        """Return the penalties (b,) float32 of rows with `counts` (b,) pairs."""
        return (self.size * ((counts + self.unseen) / self.typical) ** self.exponent).astype(np.float32)


@lru_cache(4_096)
def _find_penalty(penalty: Penalty, count: int) -> np.ndarray:
    """Return the penalty (1,) float32 of a row with `count` pairs."""
    return penalty.for_counts(np.array([count]))


def compute_gram(factors: np.ndarray) -> np.ndarray:
    """Return the Gram matrix Σ y yᵀ (D, D) float64; those of blocks add up."""
    return (factors.T @ factors).astype(np.float64)


def diagonalize(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (D,) and eigenvectors (D, D) float32 of a Gram matrix."""
    values, turn = np.linalg.eigh(total)
    return np.maximum(values, 0).astype(np.float32), turn.astype(np.float32)


def solve_block(block: sparse.csr_matrix, other: np.ndarray, total: np.ndarray, penalty: Penalty) -> np.ndarray:
    """Return factors (b, D) float32 of the block's rows, given the other side's (J, D) and their Gram matrix (D, D)."""
    values, turn = diagonalize(total)
    return solve_diagonal(block, other @ turn, values, penalty) @ turn.T


def solve_diagonal(block: sparse.csr_matrix, other: np.ndarray, values: np.ndarray, penalty: Penalty) -> np.ndarray:
    """Solve as `solve_block`, for a diagonal Gram matrix `values` (D,); rows do not affect each other's results."""
    out = np.zeros((block.shape[0], other.shape[1]), np.float32)
    ridge = values + penalty.for_counts(np.diff(block.indptr))[:, None]  # (b, D)
    for rows, places in _stack_rows(block.indptr, other.shape[1]):
        extra = np.abs(block.data[places])  # (m, n)
        liked = block.data[places] > 0
        step = _solve_by_pairs if places.shape[1] < other.shape[1] else _solve_by_factors
        out[rows] = step(other[block.indices[places]], extra, liked, ridge[rows])
    return out


def solve_row(added: np.ndarray, other: np.ndarray, values: np.ndarray, penalty: Penalty) -> np.ndarray:
    """Return the factors (D,) of one row with n > 0 pairs, as `solve_diagonal` does: `added` (n,), `other` (n, D)."""
    ridge = values + _find_penalty(penalty, len(added))[:, None]
    step = _solve_by_pairs if len(added) < other.shape[1] else _solve_by_factors
    return step(other[None], np.abs(added)[None], (added > 0)[None], ridge)[0]


def _stack_rows(offsets: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield stacks of rows with equal length n: rows (m,) and positions (m, n) of their entries; skip empty rows."""
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    cuts = np.flatnonzero(np.diff(lengths[order])) + 1
    for rows in np.split(order, cuts):
        n = int(lengths[rows[0]]) if len(rows) else 0
        if n == 0:
            continue
        at_once = max(1, FLOATS_AT_ONCE // (max(n, width) * width))
        for start in range(0, len(rows), at_once):
            some = rows[start : start + at_once]
            yield some, offsets[some][:, None] + np.arange(n)


def _solve_by_pairs(y: np.ndarray, extra: np.ndarray, liked: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Solve the n × n system of each row's pairs (Woodbury identity): cheaper where n < D. Returns (m, D).

    (Λ + YᵀCY)⁻¹ Yᵀ(C + 1)p  =  Λ⁻¹Yᵀ √C (1 + √C YΛ⁻¹Yᵀ √C)⁻¹ √C⁻¹ (C + 1)p
    """
    whiten = 1 / np.sqrt(ridge)  # (m, D)
    z = y * whiten[:, None, :]  # (m, n, D)
    root = np.sqrt(extra)
    system = (z @ z.transpose(0, 2, 1)) * root[:, :, None] * root[:, None, :]
    diagonal = np.arange(root.shape[1])
    system[:, diagonal, diagonal] += 1
    right = np.where(liked, (1 + extra) / root, 0)
    dual = root * np.linalg.solve(system, right[:, :, None])[:, :, 0]
    return (dual[:, None, :] @ z)[:, 0] * whiten


def _solve_by_factors(y: np.ndarray, extra: np.ndarray, liked: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Solve the D × D normal equations of each row. Returns (m, D)."""
    system = (y * extra[:, :, None]).transpose(0, 2, 1) @ y
    diagonal = np.arange(ridge.shape[1])
    system[:, diagonal, diagonal] += ridge
    right = np.where(liked, 1 + extra, 0)[:, None, :] @ y  # (m, 1, D)
    return np.linalg.solve(system, right.transpose(0, 2, 1))[:, :, 0]
