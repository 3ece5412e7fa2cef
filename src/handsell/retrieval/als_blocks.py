"""Least-squares steps of ALS over blocks of rows: pure functions, called in one process or in Ray tasks.

A block is a sparse (b, J) matrix of the added confidences c - 1 of its rows' pairs, negative for a dislike (preference
0 with that confidence). A row's factors x minimize  Σ_j c_j (p_j - x·y_j)² + penalty |x|²  over all J.

`solve_block` finds the minimum. `improve_block` takes some steps of conjugate gradients towards it from the factors of
the sweep before [takacs2011]; no step raises a row's objective. Its loop is compiled (core/kernels/descent.c); NumPy
computes the same within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from handsell.core.kernels import compiled
from handsell.data.late_scipy import sparse

FLOATS_AT_ONCE = 4_000_000  # bound of the gathered factors of one stack of rows
NUMBERS_AT_ONCE = 8  # floats in a vector register of the kernel; D is padded with zeros to a multiple
ROWS_AT_ONCE = 8_192  # rows of a matrix product
WORK_AT_ONCE = 16_384  # pairs in the part of a block that a thread takes at a time
PAIRS_OF_A_ROW = 8  # cost of rotating a row, in pairs that take as long

T = TypeVar("T")


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


def compute_gram(factors: np.ndarray, threads: int = 1) -> np.ndarray:
    """Return the Gram matrix Σ y yᵀ (D, D) float64; those of blocks add up."""
    edges = [*range(0, len(factors), ROWS_AT_ONCE), len(factors)]
    total = np.zeros((factors.shape[1], factors.shape[1]))
    for part in run_parts(lambda first, last: factors[first:last].T @ factors[first:last], edges, threads):
        total += part
    return total


def diagonalize(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (D,) and eigenvectors (D, D) float32 of a Gram matrix."""
    with _find_blas().limit(limits=1):  # as small matrices make threads wait for each other
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


def update_block(
    block: sparse.csr_matrix,
    other: np.ndarray,
    total: np.ndarray,
    penalty: Penalty,
    start: np.ndarray,
    steps: int,
    threads: int = 1,
) -> np.ndarray:
    """Return the block's factors after a half sweep: improved by `steps` steps, or solved exactly for 0."""
    if steps:
        return improve_block(block, other, total, penalty, start, steps, threads)
    return solve_block(block, other, total, penalty)


def improve_block(
    block: sparse.csr_matrix,
    other: np.ndarray,
    total: np.ndarray,
    penalty: Penalty,
    start: np.ndarray,
    steps: int,
    threads: int = 1,
) -> np.ndarray:
    """Return factors (b, D) float32 after `steps` steps from `start` (b, D); the other arguments as of `solve_block`.

    Threads do not change the result: the parts that they take do not depend on their number.
    """
    values, turn = diagonalize(total)
    spare = -len(values) % NUMBERS_AT_ONCE
    values, turn = np.pad(values, (0, spare)), np.pad(turn, ((0, 0), (0, spare)))  # spare factors are and stay zero
    turned, out = np.empty((len(other), len(values)), np.float32), np.empty(start.shape, np.float32)
    offsets, columns = block.indptr.astype(np.int64), block.indices.astype(np.int32, copy=False)
    penalties = penalty.for_counts(np.diff(offsets))

    def rotate(first: int, last: int) -> None:
        np.matmul(other[first:last], turn, out=turned[first:last])

    def improve(first: int, last: int) -> None:
        x, own = start[first:last] @ turn, penalties[first:last]
        if compiled:
            rows = offsets[first : last + 1]
            compiled.improve_rows(rows, columns, block.data, turned, values, own, x, steps)
        else:
            _improve_stacks(block, turned, values + own[:, None], x, steps)
        np.matmul(x, turn.T, out=out[first:last])

    list(run_parts(rotate, [*range(0, len(other), ROWS_AT_ONCE), len(other)], threads))
    list(run_parts(improve, _cut_rows(offsets) if compiled else [0, len(start)], threads))
    return out


def _cut_rows(offsets: np.ndarray) -> list[int]:
    """Return the edges of parts of the rows with about WORK_AT_ONCE pairs; a row costs as much as some pairs."""
    work = offsets + PAIRS_OF_A_ROW * np.arange(len(offsets))
    cuts = np.searchsorted(work, np.arange(WORK_AT_ONCE, work[-1], WORK_AT_ONCE))
    return np.unique([0, *cuts, len(offsets) - 1]).tolist()


def run_parts(task: Callable[[int, int], T], edges: Sequence[int], threads: int) -> Iterator[T]:
    """Call task(first, last) for each part of the rows between two edges, on threads; yield the results in order.

    Meanwhile BLAS has one thread in the whole process. An error of a part is raised when its result is due.
    """
    with _find_blas().limit(limits=1):
        if threads == 1 or len(edges) <= 2:
            yield from map(task, edges[:-1], edges[1:])
        else:
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(task, edges[:-1], edges[1:])


def count_threads() -> int:
    """Return the number of threads that BLAS may use, ≥ 1: OMP_NUM_THREADS, or `threadpool_limits`; 1 if unknown."""
    return max((library.num_threads or 1 for library in _find_blas().lib_controllers), default=1)


@cache
def _find_blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _improve_stacks(block: sparse.csr_matrix, other: np.ndarray, ridge: np.ndarray, x: np.ndarray, steps: int) -> None:
    """Take conjugate gradient steps for all rows, in place in x (b, D); ridge (b, D): Gram diagonal + penalty."""
    x[np.diff(block.indptr) == 0] = 0
    for rows, places in _stack_rows(block.indptr, other.shape[1]):
        x[rows] = _take_steps(other[block.indices[places]], block.data[places], ridge[rows], x[rows], steps)


def _take_steps(y: np.ndarray, added: np.ndarray, ridge: np.ndarray, x: np.ndarray, steps: int) -> np.ndarray:
    """Return x (m, D) after steps of conjugate gradients, preconditioned by ridge (m, D).

    The rows have n pairs each, with factors y (m, n, D) of the other side and added confidences (m, n), below 0 for a
    dislike.
    """

    def combine(weight: np.ndarray) -> np.ndarray:  # (m, n) → (m, D)
        return (weight[:, None, :] @ y)[:, 0]

    def project(vector: np.ndarray) -> np.ndarray:  # (m, D) → (m, n)
        return (y @ vector[:, :, None])[:, :, 0]

    extra = np.abs(added)
    residual = combine(np.where(added > 0, 1 + extra, 0) - extra * project(x)) - ridge * x
    direction = residual / ridge
    size = _dot(residual, direction)
    for _ in range(steps):
        image = ridge * direction + combine(extra * project(direction))
        reach = _divide(size, _dot(direction, image))
        x = x + reach * direction
        residual = residual - reach * image
        scaled = residual / ridge
        size, before = _dot(residual, scaled), size
        direction = scaled + _divide(size, before) * direction
    return x


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1, keepdims=True)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b, and 0 where a row is at its minimum already."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


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
