"""Steps of the benchmark of shards: generate and build in processes that end, search in processes that stay."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil

from benchmarks.report import MIB
from benchmarks.retrieval.ann_steps import ClusteredItems
from handsell.config import RetrievalConfig
from handsell.retrieval.index.index_fitting import QUERIES, fit_index, fit_shards
from handsell.retrieval.index.nearest import Nearest
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.sharded_index import Found, ShardedIndex, find_enough, find_items, merge_found

WARM_UP, ROUNDS = 3, 3
START_S = 120.0


def generate_shards(source: ClusteredItems, options: argparse.Namespace, folder: Path) -> np.ndarray:
    """Write the items as one file and as one file per shard; return the exact (Q, k) nearest ones."""
    shards, users = options.shards, source.generate_queries(options.queries, 0)
    kinds = ("w+", np.float32)
    whole = np.lib.format.open_memmap(folder / "source.npy", *kinds, (source.items, source.dim))
    parts = [
        np.lib.format.open_memmap(folder / f"part-{s}.npy", *kinds, (-(-(source.items - s) // shards), source.dim))
        for s in range(shards)
    ]
    nearest = Nearest(users, options.k)
    for first, block in source.generate_blocks():
        whole[first : first + len(block)] = block
        items = np.arange(first, first + len(block))
        for s, part in enumerate(parts):
            own = items % shards == s
            part[items[own] // shards] = block[own]
        nearest.add(items, block)
    return nearest.read_items()


def compare_exact(folder: Path, options: argparse.Namespace, users: np.ndarray) -> bool:
    """Return whether exact indexes of both files give the same items and scores, for a batch and for one query."""
    one = VectorIndex(_map(folder / "source.npy"), np.ones(options.items, bool))
    parts = [_map(folder / f"part-{s}.npy") for s in range(options.shards)]
    sharded = ShardedIndex(tuple(VectorIndex(part, np.ones(len(part), bool)) for part in parts))
    some = np.random.default_rng(1).random((len(users), options.items)) < 0.5
    return all(
        np.array_equal(a, b)
        for rows in (slice(0, 1), slice(None))
        for a, b in zip(
            one.search(users[rows], options.k, some[rows]), sharded.search(users[rows], options.k, some[rows]),
            strict=True,
        )
    )  # fmt: skip


def build_one(source: ClusteredItems, options: argparse.Namespace, folder: Path) -> None:
    """Build one index of all items as training does, and save it to folder/one."""
    config = build_config(options)
    fit_index(
        _map(folder / "source.npy"), config, options.k, lambda: source.generate_queries(QUERIES, 1), options.seed,
        options.threads,
    ).save(folder / "one")  # fmt: skip


def build_shards(source: ClusteredItems, options: argparse.Namespace, folder: Path) -> None:
    """Build the shards of the same items, and save them to folder/sharded."""
    parts = [_map(folder / f"part-{s}.npy") for s in range(options.shards)]
    made = fit_shards(
        parts, build_config(options), options.k, lambda: source.generate_queries(QUERIES, 1), options.seed,
        options.threads,
    )  # fmt: skip
    ShardedIndex(tuple(made)).save(folder / "sharded")


def build_config(options: argparse.Namespace) -> RetrievalConfig:
    chosen = {"flat_below": options.flat_below, "pq_above": options.pq_above, "index_recall": options.recall}
    return RetrievalConfig.model_validate({name: value for name, value in chosen.items() if value is not None})


class Process:
    """A process that holds one index, or one shard, and searches for batches that it receives."""

    def __init__(self, path: Path, k: int, shards: int):
        here, there = get_context("spawn").Pipe()
        self.pipe: Connection = here
        self._process = get_context("spawn").Process(target=_serve, args=(there, path, k, shards), daemon=True)
        self._process.start()
        if not here.poll(START_S):
            raise TimeoutError(f"the process of {path} did not start within {START_S:.0f} s")
        here.recv()

    def read_memory(self) -> dict[str, float]:
        self.pipe.send(None)
        return self.pipe.recv()

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, path: Path, k: int, shards: int) -> None:
    index = VectorIndex.load(path)
    everything = np.ones((1, len(index.vectors)), bool)
    pipe.send("ready")
    while True:
        queries = pipe.recv()
        if queries is None:
            pipe.send(_read_memory(path))
            continue
        busy = time.thread_time()
        mask = np.broadcast_to(everything, (len(queries), everything.shape[1]))
        found = index.search(queries, k, mask, find_enough(k, shards))
        pipe.send((found, time.thread_time() - busy))


def measure_latency(
    processes: Sequence[Process], users: np.ndarray, batch: int, k: int
) -> tuple[dict[str, float], Found]:
    """Send batches to all processes at once and merge; return times in ms and the answers (Q, k) of one round."""
    wall, cpu, found = [], [], []
    starts = range(0, len(users) - batch + 1, batch)
    for round_, first in [(0, s) for s in starts][:WARM_UP] + [(r, s) for r in range(1, ROUNDS + 1) for s in starts]:
        begun = time.perf_counter()
        for process in processes:
            process.pipe.send(users[first : first + batch])
        answers = [process.pipe.recv() for process in processes]
        parts = [(find_items(rows, s, len(processes)), scores) for s, ((rows, scores), _) in enumerate(answers)]
        merged = merge_found(parts, k) if len(parts) > 1 else parts[0]
        if round_:
            wall.append(time.perf_counter() - begun)
            cpu.append([busy for _, busy in answers])
        if round_ == ROUNDS:
            found.append(merged)
    p50, p99 = np.percentile(np.array(wall) * 1e3, (50, 99))
    return {
        "p50 ms": float(p50), "p99 ms": float(p99),
        "slowest, CPU ms": float(np.median(np.max(cpu, axis=1)) * 1e3),
        "all, CPU ms": float(np.median(np.sum(cpu, axis=1)) * 1e3),
    }, (np.concatenate([items for items, _ in found]), np.concatenate([scores for _, scores in found]))  # fmt: skip


def _read_memory(folder: Path) -> dict[str, float]:
    """Read the memory of this process in MiB: files of the index that it has mapped, and everything else."""
    process = psutil.Process()
    files = sum(one.rss for one in process.memory_maps() if one.path.startswith(f"{folder}/")) / MIB
    on_disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB
    return {"files MiB": on_disk, "mapped MiB": files, "other MiB": process.memory_info().rss / MIB - files}


def _map(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))
