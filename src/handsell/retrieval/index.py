"""The vector index: inner product under an eligibility mask, exact for small catalogues, FAISS IVF above.

The same items always get bit-identical scores: FAISS (or the scan) proposes, then the proposed items are scored
again by one kernel whose result for an item depends neither on the batch nor on the item's place in it. So a
micro-batch of requests gives what single requests give, and `score` agrees with `search`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from handsell.retrieval.topk import nothing, padded, top_items, within

SPARE = 16  # items asked of FAISS beyond k, so that a tie at the cut is noticed
SCAN_BELOW = 0.01  # share of eligible items under which they are simply all scored
TOGETHER = 8  # from so many queries on, an exact search multiplies them as one matrix
QUERIES_AT_ONCE = 128
ROUNDING = 1e-5  # bound of the difference between two float32 inner products, relative to |query| max |vector|


@dataclass(frozen=True)
class VectorIndex:
    """I item vectors by number; a vector of zeros means that the model does not know the item."""

    vectors: np.ndarray  # (I, D) float32
    known: np.ndarray  # (I,) bool
    ivf: Any = None  # a FAISS IVF index, or None for exact search
    nprobe: int = 0

    @classmethod
    def exact(cls, vectors: np.ndarray) -> VectorIndex:
        vectors = np.ascontiguousarray(vectors, np.float32)
        return cls(vectors, (vectors != 0).any(axis=1))

    def search(self, queries: np.ndarray, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items and scores (B, k) for queries (B, D); a query of zeros finds nothing."""
        if not len(self.vectors):
            return nothing(len(queries), k)
        allowed = within(eligible, len(self.vectors)) & self.known
        if self.ivf is None and k > 0 and len(queries) >= TOGETHER:
            return padded(list(self._many(queries, k, allowed)), k)
        return padded([self._row(q, k, allowed[b]) for b, q in enumerate(queries)], k)

    def score(self, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(B, K) inner products; NaN where an item is -1, beyond I or unknown, or where the query is zero."""
        out = np.full(items.shape, np.nan, np.float32)
        for b, query in enumerate(queries):
            valid = (items[b] >= 0) & (items[b] < len(self.vectors))
            valid[valid] = self.known[items[b][valid]]
            if query.any():
                out[b, valid] = products(self.vectors[items[b][valid]], query)
        return out

    def _row(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The k best allowed items of one query."""
        count = int(np.count_nonzero(allowed))
        if not query.any() or k <= 0:
            count = 0
        if count <= max(SCAN_BELOW * len(allowed), k + SPARE):
            return self._scan(query, k, np.flatnonzero(allowed) if count else np.zeros(0, np.int64))
        item, score = self._propose(query, k + SPARE, allowed)
        if len(item) <= k and count > k:  # too few clusters probed for this mask
            return self._scan(query, k, np.flatnonzero(allowed))
        if self.ivf is None and score[k - 1] - score[-1] <= self._slack(query):  # a tie across the cut
            return self._scan(query, k, np.flatnonzero(allowed))
        return item[:k], score[:k]

    def _scan(self, query: np.ndarray, k: int, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact: every given item (ascending) is scored."""
        if len(items) > 8 * (k + SPARE):  # a fast pass leaves only those that rounding could still bring in
            rough = (
                self.vectors[items] @ query if len(items) < 0.5 * len(self.vectors) else (self.vectors @ query)[items]
            )
            least = np.partition(rough, len(rough) - k)[len(rough) - k] - self._slack(query)
            items = items[rough >= least]
        return top_items(items.astype(np.int32), products(self.vectors[items], query), k)

    def _many(self, queries: np.ndarray, k: int, allowed: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Exact, for many queries: one product with all items for a block of them, then as `_scan`."""
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            some = queries[start : start + QUERIES_AT_ONCE]
            rough = some @ self.vectors.T
            rough[~allowed[start : start + QUERIES_AT_ONCE]] = -np.inf
            for query, row, may in zip(some, rough, allowed[start:], strict=False):
                if not query.any():
                    yield np.zeros(0, np.int32), np.zeros(0, np.float32)
                    continue
                cut = max(len(row) - k, 0)
                near = np.flatnonzero((row >= np.partition(row, cut)[cut] - self._slack(query)) & may)
                yield top_items(near.astype(np.int32), products(self.vectors[near], query), k)

    def _propose(self, query: np.ndarray, k: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """About the k best items by FAISS, scored again and in order."""
        faiss = _faiss()
        bits = np.packbits(allowed, bitorder="little")
        only = faiss.IDSelectorBitmap(bits)
        if self.ivf is None:
            params = faiss.SearchParameters(sel=only)
        else:
            params = faiss.SearchParametersIVF(sel=only, nprobe=self.nprobe)
        _, item = (self._flat if self.ivf is None else self.ivf).search(query[None], k, params=params)
        found = np.sort(item[0][item[0] >= 0])
        return top_items(found.astype(np.int32), products(self.vectors[found], query), k)

    def _slack(self, query: np.ndarray) -> float:
        return float(ROUNDING * np.linalg.norm(query) * self._longest)

    @cached_property
    def _longest(self) -> float:
        return float(np.sqrt(np.einsum("id,id->i", self.vectors, self.vectors).max(initial=0)))

    @cached_property
    def _flat(self) -> Any:
        flat = _faiss().IndexFlatIP(self.vectors.shape[1])
        flat.add(self.vectors)
        return flat

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "vectors.npy", self.vectors)
        about = {"kind": "flat" if self.ivf is None else "ivf", "nprobe": self.nprobe}
        (path / "index.json").write_text(json.dumps(about))
        if self.ivf is not None:
            _faiss().write_index(self.ivf, str(path / "ivf.faiss"))

    @classmethod
    def load(cls, path: Path) -> VectorIndex:
        """Memory mapped: replicas on one machine share the pages."""
        about = json.loads((path / "index.json").read_text())
        vectors = np.load(path / "vectors.npy", mmap_mode="r")
        ivf = None
        if about["kind"] == "ivf":
            faiss = _faiss()
            ivf = faiss.read_index(str(path / "ivf.faiss"), faiss.IO_FLAG_MMAP_IFC)
        return cls(vectors, (vectors != 0).any(axis=1), ivf, about["nprobe"])


def _faiss() -> Any:
    """FAISS, held to one thread in the thread that calls it; imported only where it is used."""
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss


def products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(K,) inner products of vectors (K, D) with query (D,), each summed in the same order whatever K is."""
    return np.einsum("kd,d->k", vectors, query)


def fit_index(vectors: np.ndarray, flat_below: int, recall: float = 0.95, seed: int = 0) -> VectorIndex:
    """Exact up to flat_below items; above, IVF with about sqrt(I) lists.

    nprobe is the smallest power of two that finds `recall` of the exact 100 nearest of 64 sampled items.
    """
    exact = VectorIndex.exact(vectors)
    items = np.flatnonzero(exact.known)
    if len(items) <= flat_below:
        return exact
    faiss = _faiss()
    lists = int(np.sqrt(len(items)))
    dim = exact.vectors.shape[1]
    ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.seed = seed + 1
    ivf.train(exact.vectors[items])
    ivf.add_with_ids(exact.vectors[items], items.astype(np.int64))
    sample = np.random.default_rng(seed).choice(items, min(64, len(items)), replace=False)
    return VectorIndex(exact.vectors, exact.known, ivf, _probes(ivf, exact, exact.vectors[sample], lists, recall))


def _probes(ivf: Any, exact: VectorIndex, queries: np.ndarray, lists: int, recall: float) -> int:
    faiss = _faiss()
    k = min(100, len(exact.vectors))
    truth, _ = exact.search(queries, k, np.ones((len(queries), len(exact.vectors)), bool))
    nprobe = 1
    while nprobe < lists:
        _, found = ivf.search(queries, k, params=faiss.SearchParametersIVF(nprobe=nprobe))
        if np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]) >= recall:
            break
        nprobe *= 2
    return min(nprobe, lists)
