"""Steps of the index benchmark, each run in a separate process: generate, build, search."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from threadpoolctl import threadpool_limits

from benchmarks.report import MIB
from handsell.config import RetrievalConfig
from handsell.core.batches import NONE
from handsell.retrieval.index.index_fitting import QUERIES, compute_recall, fit_index
from handsell.retrieval.index.nearest import ROWS, Nearest
from handsell.retrieval.index.vector_index import VectorIndex

HALF_ABOVE = 10_000_000  # items; larger catalogs are stored as float16
ITEMS_PER_CLUSTER = 4  # averaged into a user's query
WARM_UP, ROUNDS = 20, 3


@dataclass(frozen=True)
class ClusteredItems:
    """Generator of clustered item vectors; equal fields generate equal items, block by block."""

    items: int
    dim: int = 64
    latent: int = 20
    clusters: int = 1000
    spread: float = 0.6  # standard deviation within a cluster; that of the centers is 1
    noise: float = 0.2  # of each of the dim dimensions; the latent part has about 1.2
    seed: int = 0
    share: np.ndarray = field(init=False, repr=False)  # (clusters,) probability of each cluster
    turn: np.ndarray = field(init=False, repr=False)  # (latent, dim)
    centers: np.ndarray = field(init=False, repr=False)  # (clusters, latent)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        share = 1 / np.arange(1, self.clusters + 1)
        turn = rng.standard_normal((self.latent, self.dim), np.float32) / np.float32(np.sqrt(self.latent))
        centers = rng.standard_normal((self.clusters, self.latent), np.float32)
        for name, value in {"share": share / share.sum(), "turn": turn, "centers": centers}.items():
            object.__setattr__(self, name, value)

    def generate_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the first item number and (≤ ROWS, dim) unit vectors of each block."""
        for first in range(0, self.items, ROWS):
            rng = np.random.default_rng((self.seed, 1, first))
            count = min(ROWS, self.items - first)
            yield first, self._generate_points(rng.choice(self.clusters, count, p=self.share), rng)

    def generate_queries(self, count: int, draw: int) -> np.ndarray:
        """Return (count, dim) unit vectors; each value of `draw` gives other users."""
        rng = np.random.default_rng((self.seed, 2, draw))
        out = np.empty((count, self.dim), np.float32)
        for row in out:
            taste = rng.choice(self.clusters, rng.integers(1, 4), p=self.share)
            liked = self._generate_points(np.repeat(taste, ITEMS_PER_CLUSTER), rng)
            row[:] = np.repeat(rng.dirichlet(np.ones(len(taste))), ITEMS_PER_CLUSTER) @ liked
        return normalize(out)

    def _generate_points(self, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        z = self.centers[cluster] + self.spread * rng.standard_normal((len(cluster), self.latent), np.float32)
        return normalize(z @ self.turn + self.noise * rng.standard_normal((len(cluster), self.dim), np.float32))

    def effective_dimensions(self) -> float:
        """Participation ratio (Σλ)² / Σλ² of the covariance of the first block."""
        values = np.linalg.eigvalsh(np.cov(next(self.generate_blocks())[1].T))
        return float(values.sum() ** 2 / (values**2).sum())


def normalize(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def run_in_subprocess(step: Callable[..., Any], *arguments: Any) -> tuple[dict[str, float], Any]:
    """Run a step in a new process, so that its peak memory can be measured; return its cost and its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_run_and_measure, step, *arguments).result()


def _run_and_measure(step: Callable[..., Any], *arguments: Any) -> tuple[dict[str, float], Any]:
    begun, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(1):
        result = step(*arguments)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB),
    }, result


def generate(source: ClusteredItems, options: argparse.Namespace, path: Path) -> list[np.ndarray]:
    """Write the items to a file and return, for each share of eligible items, the exact (Q, k) nearest ones."""
    kind = np.float16 if source.items > HALF_ABOVE else np.float32
    file = np.lib.format.open_memmap(path, "w+", kind, (source.items, source.dim))
    users = source.generate_queries(options.queries, 0)
    nearest = [Nearest(users, options.k) for _ in options.shares]
    for first, block in source.generate_blocks():
        file[first : first + len(block)] = block
        for share, found in zip(options.shares, nearest, strict=True):
            some = np.flatnonzero(draw_eligible(share, first, len(block)))
            found.add(first + some, block[some])
    file.flush()
    return [found.read_items() for found in nearest]


def draw_eligible(share: float, first: int, count: int) -> np.ndarray:
    """Return (count,) bool: the eligible ones of the items from `first` on, chosen by a hash of the item number."""
    number = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (number >> np.uint64(32)).astype(np.float64) < share * 2**32


def build_mask(items: int, share: float) -> np.ndarray:
    """Return (1, items) bool, built block by block because all hashes would take more memory than the index."""
    out = np.empty((1, items), bool)
    for first in range(0, items, ROWS):
        block = out[0, first : first + ROWS]
        block[:] = draw_eligible(share, first, len(block))
    return out


def build(source: ClusteredItems, options: argparse.Namespace, folder: Path) -> None:
    """Build the index of the file as training does, and save it to folder/index."""
    chosen = {"flat_below": options.flat_below, "pq_above": options.pq_above, "index_recall": options.recall}
    config = RetrievalConfig.model_validate({name: value for name, value in chosen.items() if value is not None})
    vectors = np.load(folder / "source.npy", mmap_mode="r")
    fit_index(
        vectors, config, options.k, lambda: source.generate_queries(QUERIES, 1), options.seed, options.threads
    ).save(folder / "index")  # fmt: skip


def search(
    source: ClusteredItems, options: argparse.Namespace, path: Path, truth: list[np.ndarray]
) -> tuple[list[dict[str, Any]], int]:
    """Search the saved index, loaded as in serving, by single queries; return rows and MiB of resident mapped files."""
    index, users = VectorIndex.load(path), source.generate_queries(options.queries, 0)
    rows = [
        _row(index, users, build_mask(source.items, share), share, exact)
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
        f"recall@{k}": float(compute_recall(np.stack(found), truth).mean()),
        "p50 ms": float(wall_ms[0]),
        "p99 ms": float(wall_ms[1]),
        "p50 CPU ms": float(cpu_ms[0]),
        "p99 CPU ms": float(cpu_ms[1]),
        "items returned": float((np.stack(found) != NONE).sum(axis=1).mean()),
    }
