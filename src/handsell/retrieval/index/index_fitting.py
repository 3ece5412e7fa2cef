"""Choice, training and tuning of the index for a catalog.

Up to `retrieval.flat_below` known items the index is exact. Above, it is an inverted file with one byte per dimension
(`ivf`); above `retrieval.pq_above`, one of residuals with four bits per two dimensions (`ivf_pq`). Both only propose
items.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from handsell.core.hashing import uniform
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.index.approximate import SPARE, Approximate, IndexSettings, Kind, load_faiss
from handsell.retrieval.index.nearest import Nearest, compute_max_norm, find_known, iterate_blocks, to_float32
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.numbering import find_items
from handsell.retrieval.sharding.sharded_index import ItemIndex, ShardedIndex

log = logging.getLogger(__name__)

POINTS_PER_LIST = 64  # training vectors of k-means per centroid
SWEEPS = 10  # iterations of k-means
CODE_POINTS = 16_384  # training vectors of the codes
QUERIES = 256  # half for tuning, half for measuring
FULL_PROBES = 64  # queries that read every list, to measure the loss by the codes alone
STANDARD_ERRORS = 2  # by which the mean recall of the tuning queries must exceed the stated recall
MAX_SHORTLIST = 16  # largest shortlist, per requested item

Queries = tuple[np.ndarray, str]  # (Q, D), and "users" or "items"


def fit_index(
    vectors: np.ndarray,
    config: RetrievalConfig,
    k: int,
    queries: Callable[[], np.ndarray] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> ItemIndex:
    """Fit an index for vectors (I, D) float32, or a mapped file of float32 or float16, which is read in blocks.

    `k` is the number of items requested in serving. `queries` returns user vectors (Q, D), on which an approximate
    index is tuned; it is not called for an exact index. Without it, or where all its rows are zeros, sampled items are
    the queries. `config.shards` is the number of parts of the index.
    """
    if vectors.dtype != np.float16:
        vectors = np.asarray(vectors, np.float32)
    parts = fit_shards([vectors[s :: config.shards] for s in range(config.shards)], config, k, queries, seed, threads)
    return parts[0] if config.shards == 1 else ShardedIndex(tuple(parts))


def fit_shards(
    vectors: Sequence[np.ndarray],
    config: RetrievalConfig,
    k: int,
    queries: Callable[[], np.ndarray] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> list[VectorIndex]:
    """Fit the index of each shard's vectors (rows, D): lists, codes and search effort are those of one index of all.

    The kind follows from the number of items of a shard.
    """
    vectors = [np.ascontiguousarray(part) for part in vectors]
    known = [find_known(part) for part in vectors]
    count = sum(int(np.count_nonzero(part)) for part in known)
    kind = choose_kind(-(-count // len(vectors)), config)
    if kind is None:
        return [VectorIndex.exact(part) for part in vectors]
    rng = np.random.default_rng(seed)
    empty = train_lists(vectors, known, kind, rng, threads)
    lists = [add_items(empty, *part, threads) for part in zip(vectors, known, strict=True)]
    tuning_queries, source = _choose_queries(queries, vectors, known, rng)
    nearest = Nearest(tuning_queries, min(k, count))
    for shard, part in enumerate(vectors):
        for rows, block in iterate_blocks(part, known[shard]):
            nearest.add(find_items(rows, shard, len(vectors)), block)
    found = tune_lists(JoinedLists(lists), tuning_queries, nearest.read_items(), config.index_recall)
    settings = replace(found, queries=source)
    return [
        VectorIndex(part, known[s], Approximate(kind, lists[s], settings), compute_max_norm(part))
        for s, part in enumerate(vectors)
    ]


def choose_kind(items: int, config: RetrievalConfig) -> Kind | None:
    """Return the kind of approximate index for a number of items; None: exact."""
    if items <= config.flat_below:
        return None
    return "ivf" if items <= config.pq_above else "ivf_pq"


def train_lists(
    vectors: Sequence[np.ndarray], known: Sequence[np.ndarray], kind: Kind, rng: np.random.Generator, threads: int
) -> Any:
    """Train a FAISS IVF index with √I lists on a sample of all shards' items; it has no items yet."""
    faiss = load_faiss()
    dim, count = vectors[0].shape[1], sum(int(np.count_nonzero(part)) for part in known)
    lists = int(np.sqrt(count))
    sample = _sample_vectors(vectors, known, POINTS_PER_LIST * lists, int(rng.integers(1 << 30)))
    means = faiss.Kmeans(
        dim, lists, niter=SWEEPS, seed=int(rng.integers(1 << 30)),
        max_points_per_centroid=POINTS_PER_LIST, min_points_per_centroid=1,
    )  # fmt: skip
    by_distance = faiss.IndexFlatL2(dim)
    index = _create_lists(kind, by_distance, dim, lists)
    with threadpool_limits(threads):  # of FAISS and of the BLAS that it uses
        means.train(sample)
        by_distance.add(means.centroids)
        index.train(sample[rng.permutation(len(sample))[:CODE_POINTS]])
    index.referenced_objects = [by_distance]  # Python owns it: it must not be freed before the index
    return index


def add_items(empty: Any, vectors: np.ndarray, known: np.ndarray, threads: int) -> Any:
    """Return a copy of a trained index with every known item of a shard.

    An item is in the list of its nearest centroid (L2), so that vectors may have any norm. A search reads the lists
    whose centroids have the largest inner product with the query, which is the mean score of their items.
    """
    faiss = load_faiss()
    index = faiss.deserialize_index(faiss.serialize_index(empty))
    by_distance = index.quantizer
    with threadpool_limits(threads):
        for rows, block in iterate_blocks(vectors, known):
            index.add_with_ids(block, rows)
    by_product = faiss.IndexFlatIP(index.d)
    by_product.add(by_distance.reconstruct_n(0, index.nlist))
    index.own_fields = False
    by_distance.this.own(True)
    index.quantizer = by_product
    index.referenced_objects = [by_product]
    return index


def _create_lists(kind: Kind, coarse: Any, dim: int, lists: int) -> Any:
    faiss = load_faiss()
    by = faiss.METRIC_INNER_PRODUCT
    if kind == "ivf":
        return faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, by, False)
    index = faiss.IndexIVFPQFastScan(coarse, dim, lists, dim // 2 if dim % 2 == 0 else dim, 4, by)
    index.by_residual = True
    return index


def _sample_vectors(vectors: Sequence[np.ndarray], known: Sequence[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Return vectors (N, D) float32 of about `count` known items, ascending by item.

    Items are drawn by a hash of their number, so that one index and its shards learn from the same ones.
    """
    share = min(1.0, count / max(sum(int(np.count_nonzero(part)) for part in known), 1))
    items, drawn = [], []
    for shard, part in enumerate(vectors):
        for rows, block in iterate_blocks(part, known[shard]):
            item = find_items(rows, shard, len(vectors))
            chosen = uniform(seed, item) < share
            items.append(item[chosen])
            drawn.append(block[chosen])
    return np.concatenate(drawn)[np.argsort(np.concatenate(items))]


def _choose_queries(
    queries: Callable[[], np.ndarray] | None,
    vectors: Sequence[np.ndarray],
    known: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> Queries:
    if queries is not None:
        users = to_float32(queries())
        users = users[users.any(axis=1)]
        if len(users) > 1:
            return np.ascontiguousarray(rng.permutation(users)[:QUERIES]), "users"
    items = _sample_vectors(vectors, known, 4 * QUERIES, int(rng.integers(1 << 30)))
    return np.ascontiguousarray(rng.permutation(items)[:QUERIES]), "items"


class JoinedLists:
    """The lists of all shards, searched as one: the best by the codes of all items."""

    def __init__(self, shards: Sequence[Any]):
        self.shards, self.nlist = shards, shards[0].nlist
        self.ntotal = sum(lists.ntotal for lists in shards)

    def search(self, queries: np.ndarray, k: int, params: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return scores by the codes and items (Q, k), best first; -1 where a query found fewer."""
        found = [lists.search(queries, min(k, lists.ntotal), params=params) for lists in self.shards]
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        items = [find_items(rows, s, len(self.shards)) for s, (_, rows) in enumerate(found)]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(np.concatenate(items, axis=1), best, 1)


def tune_lists(lists: Any, queries: np.ndarray, truth: np.ndarray, recall: float) -> IndexSettings:
    """Find the shortest shortlist and then the fewest lists with which the search reaches `recall`.

    Half of the allowed loss is for the shortlist. `truth` (Q, k) are the exact nearest items of the queries (Q, D).
    Every second query is used for tuning, the others for measuring the recall.
    """
    tuning, held_out = slice(0, None, 2), slice(1, None, 2)
    k = truth.shape[1]
    shortlist = _tune_shortlist(lists, queries[tuning][:FULL_PROBES], truth[tuning][:FULL_PROBES], (1 + recall) / 2)
    wanted = int(k * shortlist) + SPARE

    def reaches_recall(nprobe: int) -> bool:
        each = compute_recall(_search(lists, queries[tuning], wanted, nprobe), truth[tuning])
        return bool(each.mean() - STANDARD_ERRORS * each.std() / np.sqrt(len(each)) >= recall)

    nprobe = _find_least(lists.nlist, reaches_recall)
    measured = float(compute_recall(_search(lists, queries[held_out], wanted, nprobe), truth[held_out]).mean())
    if measured < recall - 0.02:
        log.warning("the index finds %.3f of the %d nearest items, expected %.3f", measured, k, recall)
    return IndexSettings(k, nprobe, shortlist, round(measured, 4), recall, "")


def _tune_shortlist(lists: Any, queries: np.ndarray, truth: np.ndarray, recall: float) -> float:
    """Return the shortlist per requested item that contains `recall` of the true items if every list is read."""
    k = truth.shape[1]
    most = min(MAX_SHORTLIST * k, lists.ntotal)
    found = _search(lists, queries, most, lists.nlist)
    hits = np.mean([np.isin(f, t) for f, t in zip(found, truth, strict=True)], axis=0).cumsum() / k
    enough = int(np.searchsorted(hits, recall)) + 1  # a count, when hits[enough - 1] >= recall
    return round(min(max(enough, k), most) / k, 3)


def _find_least(most: int, enough: Callable[[int], bool]) -> int:
    """Return the least number in 1 … most that is enough, up to 5 % more; `most` where none is."""
    above = 1
    while above < most and not enough(above):
        above = min(2 * above, most)
    below = above // 2
    while above - below > max(1, above // 20):
        middle = (above + below) // 2
        if enough(middle):
            above = middle
        else:
            below = middle
    return above


def _search(lists: Any, queries: np.ndarray, k: int, nprobe: int) -> np.ndarray:
    """Return items (Q, k), best first by the codes."""
    params = load_faiss().SearchParametersIVF(nprobe=nprobe)
    return lists.search(queries, min(k, lists.ntotal), params=params)[1]


def compute_recall(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the recall (Q,): the share of truth (Q, k) that is in found (Q, N)."""
    return np.array([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
