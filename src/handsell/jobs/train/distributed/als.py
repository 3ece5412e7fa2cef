"""ALS on several nodes: Ray tasks read blocks of users and of items, and solve them.

The driver holds the factors and no interactions; each block stays in the object store of the node that read it. The
steps are those of retrieval/models/als.py, so the model is the local one within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from scipy import sparse

from handsell.config import Config
from handsell.data.interactions import Interactions
from handsell.jobs.progress import report_update
from handsell.jobs.ray_tasks import get_results
from handsell.jobs.train.windows import CatalogSizes
from handsell.retrieval.als_blocks import Penalty, compute_gram, update_block
from handsell.retrieval.like_matrix import raise_degrees
from handsell.retrieval.models.als import (
    ALS,
    ALSConfig,
    build_als,
    build_like_graph,
    build_penalties,
    compute_confidence,
    scale_directions,
)
from handsell.retrieval.models.spectral import iterate_subspace


def fit(config: Config, interactions: Path, content: Path, sizes: CatalogSizes, out: Path) -> None:
    """Fit on the Parquet parts in `interactions`, save the model to `out`; content is not used.

    Needs a connected Ray cluster; the folder must be readable on every node.
    """
    parts = [str(part) for part in sorted(interactions.absolute().glob("*.parquet"))]
    model = fit_in_blocks(parts, sizes, config.retrieval["als"], config.jobs.wait_for_resources_s)
    some = Interactions.read([Path(part) for part in parts[:1]], sizes.users, sizes.items)
    model.with_index(config.retrieval, some).save(out)


def fit_in_blocks(parts: Sequence[str], sizes: CatalogSizes, config: ALSConfig, wait_s: float = 120.0) -> ALS:
    """Fit like `fit_als`, each half sweep in config.blocks tasks."""
    users = _Side.read(parts, "user", sizes, config, wait_s)
    items = _Side.read(parts, "item", sizes, config, wait_s)
    by_user, by_item = build_penalties(users.counts, items.counts, config)
    item_factors = items.share(_first_factors(users, items, sizes, config))
    user_factors = users.share(np.zeros((sizes.users, item_factors.whole.shape[1]), np.float32))
    for epoch in range(config.epochs):
        user_factors = users.update(user_factors, item_factors.whole, by_user, config.cg_steps)
        item_factors = items.update(item_factors, user_factors.whole, by_item, config.cg_steps)
        report_update(f"als: sweep {epoch + 1} of {config.epochs}")
    return build_als(item_factors.whole, by_user, config)


@dataclass(frozen=True)
class _Factors:
    """The factors of a side, and their blocks on the nodes that computed them."""

    whole: np.ndarray  # (rows, D)
    blocks: list[ray.ObjectRef]


@dataclass(frozen=True)
class _Side:
    """The pairs by user or by item, in blocks of rows in the object store."""

    blocks: list[ray.ObjectRef]  # csr matrices (rows of the block, size of the other side)
    counts: np.ndarray  # (rows,) number of pairs
    liked: np.ndarray  # (rows,) summed confidence of the likes
    wait_s: float

    @classmethod
    def read(cls, parts: Sequence[str], name: str, sizes: CatalogSizes, config: ALSConfig, wait_s: float) -> _Side:
        rows, columns = (sizes.users, sizes.items) if name == "user" else (sizes.items, sizes.users)
        edges = np.linspace(0, rows, config.blocks + 1).astype(int)
        reads: list[Any] = [  # pairs of references: a block, and its counts and confidences
            _read_block.remote(parts, name, int(first), int(last), columns, config.alpha)
            for first, last in pairwise(edges)
        ]
        blocks = [block for block, _ in reads]
        sums = get_results([sums for _, sums in reads], "als", wait_s=wait_s)
        counts, liked = (np.concatenate([one[i] for one in sums]) for i in (0, 1))
        return cls(blocks, counts, liked, wait_s)

    def share(self, factors: np.ndarray) -> _Factors:
        """Put the first factors (rows, D) into the object store, in the blocks of this side."""
        edges = np.linspace(0, len(factors), len(self.blocks) + 1).astype(int)
        return _Factors(factors, [ray.put(factors[first:last]) for first, last in pairwise(edges)])

    def update(self, factors: _Factors, other: np.ndarray, penalty: Penalty, steps: int) -> _Factors:
        """Return the factors of this side after a half sweep."""
        shared, total = ray.put(other), compute_gram(other)
        tasks = [
            _update.remote(block, shared, total, penalty, start, steps)
            for block, start in zip(self.blocks, factors.blocks, strict=True)
        ]
        return _Factors(np.concatenate(get_results(tasks, "als", wait_s=self.wait_s)), tasks)


def _first_factors(users: _Side, items: _Side, sizes: CatalogSizes, config: ALSConfig) -> np.ndarray:
    item_scale = ray.put(raise_degrees(items.liked, -0.5))

    def product(basis: np.ndarray) -> np.ndarray:
        shared = ray.put(basis)
        return sum(
            get_results([_smooth.remote(b, item_scale, shared) for b in users.blocks], "als", wait_s=users.wait_s)
        )

    return scale_directions(*iterate_subspace(product, (sizes.users, sizes.items), config.embedding_size, config.seed))


@ray.remote(num_cpus=1, num_returns=2, scheduling_strategy="SPREAD")
def _read_block(
    parts: Sequence[str], side: str, first: int, last: int, columns: int, alpha: float
) -> tuple[sparse.csr_matrix, tuple[np.ndarray, np.ndarray]]:
    """Read the pairs of rows first…last - 1 of a side, with each row's count and the confidence of its likes."""
    other = "item" if side == "user" else "user"
    mine = [(side, ">=", first), (side, "<", last)]
    tables = [pq.read_table(part, columns=[side, other, "weight"], filters=mine) for part in parts]
    table = pa.concat_tables(tables)
    row, column, weight = (table[name].to_numpy() for name in (side, other, "weight"))
    pairs = sparse.csr_matrix((weight, (row - first, column)), shape=(last - first, columns), dtype=np.float32)
    pairs.sum_duplicates()
    pairs.eliminate_zeros()
    block = compute_confidence(pairs, alpha)
    liked = np.asarray(block.maximum(0).sum(axis=1, dtype=np.float64)).ravel()
    return block, (np.diff(block.indptr), liked)


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def _update(
    block: sparse.csr_matrix, other: np.ndarray, total: np.ndarray, penalty: Penalty, start: np.ndarray, steps: int
) -> np.ndarray:
    return update_block(block, other, total, penalty, start, steps)


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def _smooth(block: sparse.csr_matrix, item_scale: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the block's part of R̃ᵀ(R̃ basis), (I, K)."""
    graph = build_like_graph(block, item_scale)
    return graph.T @ (graph @ basis)
