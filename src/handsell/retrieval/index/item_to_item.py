"""Retrieval by item lists: scores are sums over the current session's items of weight × strength."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from handsell.core.batches import NONE, Requests
from handsell.core.kernels import compiled
from handsell.core.offsets import offsets_from_counts
from handsell.data.late_scipy import sparse
from handsell.retrieval.index.topk import fit_mask
from handsell.retrieval.sparse_rows import load_rows, read_entries, save_rows, select_top_entries


@dataclass(frozen=True)
class ListRetriever(ABC):
    """Base of retrievers by item lists; a subclass sets `name` and `config_type` and weights the session."""

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    lists: sparse.csr_matrix  # (I, I) float32, row i has the strengths of the items listed for i
    known: np.ndarray  # (I,) bool, items that occur in a list
    config: Any

    @abstractmethod
    def weigh_session(self, requests: Requests) -> tuple[np.ndarray, np.ndarray]:
        """Return distinct items (B, T) int32, padded with -1, and their weights (B, T)."""

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if compiled is None or not self._has_narrow_lists or k <= 0:
            return select_top_entries(self._score_all(requests), k, eligible)
        item, weight = self.weigh_session(requests)
        items, scores = np.empty((len(item), k), np.int32), np.empty((len(item), k), np.float32)
        lists, allowed = self.lists, fit_mask(eligible, len(self.known))
        compiled.select_listed(
            np.ascontiguousarray(item), np.ascontiguousarray(weight, np.float32), lists.indptr, lists.indices,
            lists.data, np.ascontiguousarray(allowed), items, scores,
        )  # fmt: skip
        return items, scores

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return scores (B, K); 0 where no list of the session's items contains the item."""
        return read_entries(self._score_all(requests), items, self.known)

    @cached_property
    def _has_narrow_lists(self) -> bool:
        """Whether the kernel reads the lists: places of 4 bytes, strengths of 4 bytes."""
        lists = self.lists
        return (lists.indptr.dtype, lists.indices.dtype, lists.data.dtype) == (np.int32, np.int32, np.float32)

    def _score_all(self, requests: Requests) -> sparse.csr_matrix:
        """Return scores (B, I) float32 with sorted columns."""
        item, weight = self.weigh_session(requests)
        used = item != NONE
        ends = offsets_from_counts(used.sum(axis=1))
        shape = (len(item), len(self.known))
        found = sparse.csr_matrix((weight[used].astype(np.float32), item[used], ends), shape) @ self.lists
        found.sort_indices()
        return found

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        save_rows(self.lists, path)
        np.save(path / "known.npy", self.known)
        (path / "config.json").write_text(self.config.model_dump_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        known = np.load(path / "known.npy", mmap_mode="r")
        return cls(
            load_rows(path, len(known)), known, cls.config_type.model_validate_json((path / "config.json").read_text())
        )

    @classmethod
    def from_pairs(cls, pairs: sparse.csr_matrix, config: Any) -> Self:
        """Build from strengths (I, I): keep the `config.neighbors` largest positive ones of each row."""
        lists = keep_strongest(pairs, config.neighbors)
        return cls(lists, np.bincount(lists.indices, minlength=lists.shape[1]) > 0, config)


def keep_strongest(pairs: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """Return the k largest positive entries of each row, float32 with sorted columns; ties by column."""
    coo = pairs.tocsr().tocoo()
    row, item, value = (a[coo.data > 0] for a in (coo.row, coo.col, coo.data))
    order = np.lexsort((item, -value, row))
    row, item, value = row[order], item[order], value[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < k
    lists = sparse.csr_matrix((value[kept].astype(np.float32), (row[kept], item[kept])), pairs.shape)
    lists.sort_indices()
    return lists
