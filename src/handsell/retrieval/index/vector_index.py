"""Vector index: the k largest inner products under an eligibility mask, exact or approximate by catalog size.

Scores are bit-identical for the same query and item: FAISS, or a matrix product, proposes items, and `compute_products`
scores these again, independent of the batch and of the other items. So a batch gives what single requests give, and
`score` agrees with `search`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from handsell.core.kernels import compiled
from handsell.retrieval.index.approximate import DESCRIPTION, SPARE, Approximate, read_description
from handsell.retrieval.index.coarse import CoarseVectors
from handsell.retrieval.index.nearest import ROWS, compute_max_norm, find_known, to_float32
from handsell.retrieval.index.topk import fit_mask, make_empty_rows, pad_rows, select_top

SCAN_BELOW = 0.01  # share of eligible items below which all of them are scored instead of an approximate search …
SCAN_MOST = 50_000  # … up to this number of items
MIN_BATCH = 8  # number of queries from which an exact search multiplies them as one matrix
QUERIES_AT_ONCE = 128
ROUNDING = 1e-5  # bound of the rounding error of a float32 inner product, relative to |query| max |vector|
SAMPLE = 512  # items from which the eligible share of a mask is estimated
MOSTLY = 0.5  # share of eligible items from which the mask is applied to the results instead of within FAISS

Found = tuple[np.ndarray, np.ndarray]  # items (n,) int32 best first, and their scores


@dataclass(frozen=True)
class VectorIndex:
    """I item vectors by item number; a vector of zeros is an item unknown to the model."""

    vectors: np.ndarray  # (I, D) float32; float16 if given so to `fit_index`
    known: np.ndarray  # (I,) bool
    approximate: Approximate | None = None  # None: every search is exact
    max_norm: float | None = None  # largest norm of a vector; None: computed on first use

    @classmethod
    def exact(cls, vectors: np.ndarray) -> VectorIndex:
        """Build an exact index of vectors (I, D)."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        return cls(vectors, find_known(vectors))

    def search(
        self, queries: np.ndarray, k: int, eligible: np.ndarray, enough: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return items and scores (B, k) for queries (B, D); a query of zeros finds no item.

        An approximate search that finds fewer than `enough` items, k by default, is repeated exactly.
        """
        if not len(self.vectors):
            return make_empty_rows(len(queries), k)
        eligible = fit_mask(eligible, len(self.vectors))
        if self.approximate is not None:
            near = self.approximate
            least = k if enough is None else min(enough, k)
            found = [self._search_approximate(near, q, k, eligible[b], least) for b, q in enumerate(queries)]
            return pad_rows(found, k)
        allowed = eligible & self.known
        if k > 0 and self._is_compiled and (len(queries) >= MIN_BATCH or _are_most(allowed)):
            return self._search_compiled(queries, k, allowed)
        if k > 0 and len(queries) >= MIN_BATCH:
            return pad_rows(list(self._search_exact_batch(queries, k, allowed)), k)
        return pad_rows([self._search_exact(q, k, allowed[b]) for b, q in enumerate(queries)], k)

    def score(self, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return inner products (B, K); NaN where an item is -1, beyond I or unknown, or where the query is zero."""
        out = np.full(items.shape, np.nan, np.float32)
        for b, query in enumerate(queries):
            valid = (items[b] >= 0) & (items[b] < len(self.vectors))
            valid[valid] = self.known[items[b][valid]]
            if query.any():
                out[b, valid] = compute_products(self.vectors[items[b][valid]], query)
        return out

    def _search_exact(self, query: np.ndarray, k: int, allowed: np.ndarray) -> Found:
        """Return exactly the k best allowed items of one query."""
        if not query.any() or k <= 0:
            return self._scan(query, 0, np.zeros(0, np.int64))
        return self._scan(query, k, np.flatnonzero(allowed))

    def _search_approximate(
        self, lists: Approximate, query: np.ndarray, k: int, eligible: np.ndarray, least: int
    ) -> Found:
        """Return approximately the k best eligible items of one query, at least `least` if there are as many.

        A mask under which most items are eligible is read only at proposed items: reading all of it would cost more
        than the search.
        """
        if not query.any() or k <= 0:
            return self._scan(query, 0, np.zeros(0, np.int64))
        share = float(eligible[self._sample].mean()) if len(self._sample) else 0.0
        if share >= MOSTLY:
            found = lists.propose(query, k, share)
            found = found[eligible[found]]
            if len(found) >= least:
                return self._rescore(query, k, found)
        allowed = eligible & self.known
        count = int(np.count_nonzero(allowed))
        if count > max(min(SCAN_BELOW * len(allowed), SCAN_MOST), k + SPARE):
            found = lists.propose(query, k, count / lists.lists.ntotal, allowed)
            if len(found) >= least:
                return self._rescore(query, k, found)
        return self._scan(query, k, np.flatnonzero(allowed))

    def _rescore(self, query: np.ndarray, k: int, items: np.ndarray) -> Found:
        """Return the k best of items, given in ascending order, by exact scores."""
        return select_top(items.astype(np.int32), compute_products(self.vectors[items], query), k)

    def _scan(self, query: np.ndarray, k: int, items: np.ndarray) -> Found:
        """Return exactly the k best of items, given in ascending order."""
        if len(items) > 2 * (k + SPARE):  # a fast pass drops items that cannot be among the k best despite rounding
            rough = self._score_roughly(query, items)
            least = np.partition(rough, len(rough) - k)[len(rough) - k] - self._rounding_bound(query)
            items = items[rough >= least]
        return self._rescore(query, k, items)

    def _score_roughly(self, query: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return inner products (K,) by the fastest way, within `_rounding_bound` of `compute_products`."""
        if len(items) >= 0.5 * len(self.vectors) and self.approximate is None:
            return (self.vectors @ query)[items]
        parts = [to_float32(self.vectors[items[s : s + ROWS]]) @ query for s in range(0, len(items), ROWS)]
        return np.concatenate(parts)

    def _search_exact_batch(self, queries: np.ndarray, k: int, allowed: np.ndarray) -> Iterator[Found]:
        """Yield exact results of many queries: one product with all items per block of queries, then as `_scan`."""
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            some = queries[start : start + QUERIES_AT_ONCE]
            rough = some @ self.vectors.T
            rough[~allowed[start : start + QUERIES_AT_ONCE]] = -np.inf
            for query, row, may in zip(some, rough, allowed[start:], strict=False):
                if not query.any():
                    yield np.zeros(0, np.int32), np.zeros(0, np.float32)
                    continue
                cut = max(len(row) - k, 0)
                near = np.flatnonzero((row >= np.partition(row, cut)[cut] - self._rounding_bound(query)) & may)
                yield self._rescore(query, k, near)

    @cached_property
    def _is_compiled(self) -> bool:
        return compiled is not None and self.vectors.dtype == np.float32 and self.vectors.flags.c_contiguous

    def _search_compiled(self, queries: np.ndarray, k: int, allowed: np.ndarray) -> Found:
        """Return exact results (B, k) of queries, most of whose items are allowed (B, I)."""
        items, scores = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
        queries = np.ascontiguousarray(queries, np.float32)
        norm = np.sqrt(np.einsum("bd,bd->b", queries, queries))
        slack = (ROUNDING * self._max_norm) * norm
        if self.coarse is not None and len(queries) < MIN_BATCH:
            slack += (2 * self.coarse.error) * norm
            coarse = self.coarse.pad(queries), self.coarse.coarse, self.coarse.scale
            compiled.select_nearest_coarse(self.vectors, *coarse, allowed, slack, items, scores)
            return items, scores
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            at = slice(start, start + QUERIES_AT_ONCE)
            some = queries[at]
            one_by_one = len(some) < MIN_BATCH
            rough = np.stack([self.vectors @ query for query in some]) if one_by_one else some @ self.vectors.T
            compiled.select_nearest(self.vectors, some, rough, allowed[at], slack[at], items[at], scores[at])
        return items, scores

    @cached_property
    def coarse(self) -> CoarseVectors | None:
        """The vectors as int8, for exact searches of few queries; None: those read the vectors themselves."""
        return CoarseVectors.of(self.vectors) if self._is_compiled and self.approximate is None else None

    def _rounding_bound(self, query: np.ndarray) -> float:
        return float(ROUNDING * np.linalg.norm(query) * self._max_norm)

    @cached_property
    def _max_norm(self) -> float:
        return compute_max_norm(self.vectors) if self.max_norm is None else self.max_norm

    @cached_property
    def _sample(self) -> np.ndarray:
        """At most SAMPLE known items, drawn uniformly."""
        drawn = np.random.default_rng(0).integers(len(self.vectors), size=4 * SAMPLE)
        return drawn[self.known[drawn]][:SAMPLE]

    def describe(self) -> dict[str, Any]:
        """Return the content of index.json: kind, number of items, and settings and recall of an approximate index."""
        kind = {"kind": "flat"} if self.approximate is None else self.approximate.describe()
        return {**kind, "items": int(np.count_nonzero(self.known)), "longest": self._max_norm}

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "vectors.npy", self.vectors)
        np.save(path / "known.npy", self.known)
        (path / DESCRIPTION).write_text(json.dumps(self.describe(), indent=1))
        if self.approximate is not None:
            self.approximate.save(path)

    @classmethod
    def load(cls, path: Path) -> VectorIndex:
        """Load memory mapped: replicas on one machine share the pages."""
        about = read_description(path)
        vectors = np.asarray(np.load(path / "vectors.npy", mmap_mode="r"))
        kept = path / "known.npy"  # absent in bundles of version 0.1
        known = np.asarray(np.load(kept, mmap_mode="r")) if kept.exists() else find_known(vectors)
        approximate = None if about["kind"] == "flat" else Approximate.load(path, about)
        index = cls(vectors, known, approximate, about.get("longest"))
        _ = index.coarse  # at the start, not in the first request
        return index


def _are_most(allowed: np.ndarray) -> bool:
    """Whether most items are allowed (B, I): a product with all of them is cheaper than to gather the others."""
    return bool(2 * np.count_nonzero(allowed) >= allowed.size)


def compute_products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Return inner products (K,) of vectors (K, D) with a query (D,), each summed in an order independent of K."""
    return np.einsum("kd,d->k", to_float32(vectors), query)
