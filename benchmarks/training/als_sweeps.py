"""Pairs per second of a sweep of ALS over users and items, beside `implicit` on the same pairs.

All ways take turns, sweep by sweep, each from its own factors, with the same numbers of threads and factors in float32.
`implicit` solves a row exactly, or takes three steps of conjugate gradients, its default. Its loops get the threads and
its BLAS one, as it advises; ours gives both the same number. Target: at least 0.8 times its sweep of conjugate
gradients. Rates are medians over the sweeps, by the clock and, for busy machines, by the CPU seconds of the process.

    python -m benchmarks als_sweeps                                   events of a long-tailed popularity
    python -m benchmarks als_sweeps --train FILE                      lines of `user item item …`
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.protocols.datasets import read_adjacency
from benchmarks.report import write_report
from benchmarks.training.drawn_events import draw_events
from handsell.core.errors import HandsellError
from handsell.retrieval import als_blocks
from handsell.retrieval.als_blocks import compute_gram, update_block
from handsell.retrieval.models.als import ALSConfig, build_penalties, compute_confidence, sum_weights

TARGET = 0.8
CG, EXACT = "implicit, 3 steps of CG", "implicit, exact"


def main() -> None:
    options = _parse_options()
    try:
        events = (
            read_adjacency(options.train, options.train).final.events
            if options.train
            else draw_events(options.users, options.items)
        )
    except HandsellError as error:
        sys.exit(f"error: {error}")
    pairs = compute_confidence(sum_weights(events), ALSConfig().alpha)
    rows = [row for threads in (1, 2) for size in options.factors for row in compare(pairs, size, threads, options)]
    met = all(row["of implicit CG"] >= TARGET for row in rows if row["way"] == _name_ours(ALSConfig().cg_steps))
    about = {"users": pairs.shape[0], "items": pairs.shape[1], "pairs": pairs.nnz, "target": TARGET, "met": met}
    write_report("als_sweeps", rows, about, options.json)
    sys.exit(0 if met else 1)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks als_sweeps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--users", type=int, default=5_000, help="of the drawn events")
    parser.add_argument("--items", type=int, default=5_000, help="of the drawn events")
    parser.add_argument("--train", type=Path, default=None, help="lines of `user item item …` instead")
    parser.add_argument("--factors", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--sweeps", type=int, default=7, help="measured sweeps, after one that is not")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def compare(pairs: sparse.csr_matrix, size: int, threads: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each way to sweep."""
    ways = build_ways(pairs, size, threads)
    seconds = take_turns(ways, options.sweeps)
    rate = {name: pairs.nnz / np.median(each, axis=0) for name, each in seconds.items()}  # by the clock, by the CPU
    return [
        {
            "threads": threads,
            "factors": size,
            "way": name,
            "pairs/s": round(rate[name][0]),
            "of implicit CG": round(rate[name][0] / rate[CG][0], 2),
            "of implicit exact": round(rate[name][0] / rate[EXACT][0], 2),
            "pairs/CPU s": round(rate[name][1]),
            "of implicit CG, CPU": round(rate[name][1] / rate[CG][1], 2),
        }
        for name in ways
    ]


def take_turns(ways: Mapping[str, Sweeps], count: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of `count` sweeps of each way, in turn, by the clock and of the CPU, after one more sweep."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(1 + count):
        for name, way in ways.items():
            with threadpool_limits(way.blas_threads, "blas"):
                begun, used = time.perf_counter(), time.process_time()
                way.sweep()
                if turn:
                    seconds[name].append((time.perf_counter() - begun, time.process_time() - used))
    return seconds


def build_ways(pairs: sparse.csr_matrix, size: int, threads: int) -> dict[str, Sweeps]:
    default = ALSConfig().cg_steps
    ours: dict[str, Sweeps] = {
        _name_ours(steps): OurSweeps(pairs, size, threads, steps) for steps in dict.fromkeys((default, 3, 0))
    }
    numpy = {f"{_name_ours(default)}, NumPy": OurSweeps(pairs, size, threads, default, kernels=False)}
    return {**ours, **numpy, **{name: TheirSweeps(pairs, size, threads, name == CG) for name in (CG, EXACT)}}


def _name_ours(steps: int) -> str:
    return f"als, {steps} steps of CG" if steps else "als, exact"


class Sweeps(Protocol):
    blas_threads: int

    def sweep(self) -> None: ...


class OurSweeps:
    """Sweeps from small random factors, with the compiled kernel or with NumPy."""

    def __init__(self, pairs: sparse.csr_matrix, size: int, threads: int, steps: int, kernels: bool = True) -> None:
        self.blas_threads = threads
        self._pairs, self._by_items, self._steps = pairs, pairs.T.tocsr(), steps
        self._compiled = als_blocks.compiled if kernels else None
        self._penalties = build_penalties(np.diff(pairs.indptr), np.diff(self._by_items.indptr), ALSConfig())
        self._users, self._items = draw_factors(pairs, size)

    def sweep(self) -> None:
        used, als_blocks.compiled = als_blocks.compiled, self._compiled
        by_user, by_item = self._penalties
        try:
            threads, items = self.blas_threads, self._items
            total = compute_gram(items, threads)
            users = update_block(self._pairs, items, total, by_user, self._users, self._steps, threads)
            total = compute_gram(users, threads)
            self._items = update_block(self._by_items, users, total, by_item, items, self._steps, threads)
            self._users = users
        finally:
            als_blocks.compiled = used


class TheirSweeps:
    """Sweeps of `implicit`, as its `fit` runs them, from the same factors."""

    def __init__(self, pairs: sparse.csr_matrix, size: int, threads: int, use_cg: bool) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        self.blas_threads, self._threads = 1, threads
        self._model = AlternatingLeastSquares(size, use_cg=use_cg, num_threads=threads)
        self._pairs = pairs.copy()
        self._pairs.data += np.sign(pairs.data)  # its entries are c, ours c - 1
        self._by_items = self._pairs.T.tocsr()
        self._users, self._items = draw_factors(pairs, size)

    def sweep(self) -> None:
        solve, reg = self._model.solver, self._model.regularization
        solve(self._pairs, self._users, self._items, reg, num_threads=self._threads)
        solve(self._by_items, self._items, self._users, reg, num_threads=self._threads)


def draw_factors(pairs: sparse.csr_matrix, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw small factors of users (U, D) and of items (I, D), float32, as `implicit` starts."""
    rng = np.random.default_rng(0)
    users, items = (0.01 * rng.random((rows, size), dtype=np.float32) for rows in pairs.shape)
    return users, items


if __name__ == "__main__":
    main()
