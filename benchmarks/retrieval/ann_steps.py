"""What `ann` does, each step in a process of its own: generate, build, search."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from benchmarks.report import MIB
from handsell.config import RetrievalConfig
from handsell.core.batches import NONE
from handsell.retrieval.index.index import VectorIndex
from handsell.retrieval.index.indexing import QUERIES, fit_index, shares_found
from handsell.retrieval.index.nearest import ROWS, Nearest

HALF_ABOVE = 10_000_000  # items from which on the vectors are kept as float16
ITEMS_OF_A_CLUSTER = 4  # that a user's query is made of
WARM_UP, ROUNDS = 20, 3


@dataclass(frozen=True)
class Clustered:
    """The generator. Two of the same fields give the same items, block by block."""

    items: int
    dim: int = 64
    latent: int = 20
    clusters: int = 1000
    spread: float = 0.6  # standard deviation within a cluster; that of the centers is 1
    noise: float = 0.2  # of each of the dim dimensions; the latent part has about 1.2
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        share = 1 / np.arange(1, self.clusters + 1)
        turn = rng.standard_normal((self.latent, self.dim), np.float32) / np.float32(np.sqrt(self.latent))
        centers = rng.standard_normal((self.clusters, self.latent), np.float32)
        for name, value in {"share": share / share.sum(), "turn": turn, "centers": centers}.items():
            object.__setattr__(self, name, value)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """First item and (≤ ROWS, dim) unit vectors."""
        for first in range(0, self.items, ROWS):
            rng = np.random.default_rng((self.seed, 1, first))
            count = min(ROWS, self.items - first)
            yield first, self._points(rng.choice(self.clusters, count, p=self.share), rng)

    def users(self, count: int, draw: int) -> np.ndarray:
        """(count, dim) unit queries; another `draw`, other users."""
        rng = np.random.default_rng((self.seed, 2, draw))
        out = np.empty((count, self.dim), np.float32)
        for row in out:
            taste = rng.choice(self.clusters, rng.integers(1, 4), p=self.share)
            liked = self._points(np.repeat(taste, ITEMS_OF_A_CLUSTER), rng)
            row[:] = np.repeat(rng.dirichlet(np.ones(len(taste))), ITEMS_OF_A_CLUSTER) @ liked
        return unit(out)

    def _points(self, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        z = self.centers[cluster] + self.spread * rng.standard_normal((len(cluster), self.latent), np.float32)
        return unit(z @ self.turn + self.noise * rng.standard_normal((len(cluster), self.dim), np.float32))

    def directions(self) -> float:
        """Participation ratio (Σλ)² / Σλ² of a block's covariance: how many directions it fills."""
        values = np.linalg.eigvalsh(np.cov(next(self.blocks())[1].T))
        return float(values.sum() ** 2 / (values**2).sum())


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def alone(step: Callable[..., Any], *arguments: Any) -> tuple[dict[str, float], Any]:
    """Run in a process of its own, so that its peak memory is its own; what it cost, and what it gave."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_costed, step, *arguments).result()


def _costed(step: Callable[..., Any], *arguments: Any) -> tuple[dict[str, float], Any]:
    begun, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        given = step(*arguments)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB),
    }, given


def stream(source: Clustered, options: argparse.Namespace, path: Path) -> list[np.ndarray]:
    """Write the items to a file; for each share of eligible ones the exact (Q, k) nearest of them."""
    kind = np.float16 if source.items > HALF_ABOVE else np.float32
    file = np.lib.format.open_memmap(path, "w+", kind, (source.items, source.dim))
    users = source.users(options.queries, 0)
    nearest = [Nearest(users, options.k) for _ in options.shares]
    for first, block in source.blocks():
        file[first : first + len(block)] = block
        for share, found in zip(options.shares, nearest, strict=True):
            some = np.flatnonzero(eligible(share, first, len(block)))
            found.add(first + some, block[some])
    file.flush()
    return [found.found() for found in nearest]


def eligible(share: float, first: int, count: int) -> np.ndarray:
    """(count,) bool: which of the items from `first` on are eligible, by a hash of their numbers."""
    number = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (number >> np.uint64(32)).astype(np.float64) < share * 2**32


def mask(items: int, share: float) -> np.ndarray:
    """(1, items) bool, made block by block, since its numbers would weigh more than the index."""
    out = np.empty((1, items), bool)
    for first in range(0, items, ROWS):
        block = out[0, first : first + ROWS]
        block[:] = eligible(share, first, len(block))
    return out


def build(source: Clustered, options: argparse.Namespace, folder: Path) -> None:
    """The product's index of the file, saved to folder/index."""
    chosen = {"flat_below": options.flat_below, "pq_above": options.pq_above, "index_recall": options.recall}
    config = RetrievalConfig.model_validate({name: value for name, value in chosen.items() if value is not None})
    vectors = np.load(folder / "source.npy", mmap_mode="r")
    fit_index(
        vectors, config, options.k, lambda: source.users(QUERIES, 1), options.seed, options.threads
    ).save(folder / "index")  # fmt: skip


def search(
    source: Clustered, options: argparse.Namespace, path: Path, truth: list[np.ndarray]
) -> tuple[list[dict[str, Any]], int]:
    """The saved index, loaded as serving does, one query at a time; rows, and MiB of mapped files in memory."""
    index, users = VectorIndex.load(path), source.users(options.queries, 0)
    rows = [
        _row(index, users, mask(source.items, share), share, exact)
        for share, exact in zip(options.shares, truth, strict=True)
    ]
    return rows, round(psutil.Process().memory_info().shared / MIB)


def _row(index: VectorIndex, users: np.ndarray, mask: np.ndarray, share: float, truth: np.ndarray) -> dict[str, Any]:
    k, wall, cpu = truth.shape[1], [], []
    for user in users[:WARM_UP]:
        index.search(user[None], k, mask)
    for _ in range(ROUNDS):
        found = []
        for user in users:
            begun, busy = time.perf_counter(), time.thread_time()
            items, _ = index.search(user[None], k, mask)
            cpu.append(time.thread_time() - busy)
            wall.append(time.perf_counter() - begun)
            found.append(items[0])
    wall_ms, cpu_ms = (np.percentile(np.array(taken) * 1e3, (50, 99)) for taken in (wall, cpu))
    return {
        "eligible": f"{share:.0%}",
        f"recall@{k}": float(shares_found(np.stack(found), truth).mean()),
        "p50 ms": float(wall_ms[0]),
        "p99 ms": float(wall_ms[1]),
        "p50 CPU ms": float(cpu_ms[0]),
        "p99 CPU ms": float(cpu_ms[1]),
        "given": float((np.stack(found) != NONE).sum(axis=1).mean()),
    }
