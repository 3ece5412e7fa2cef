"""A vector index in S shards: each searches its own items, and the exact scores of all are merged.

An exact index gives the items and scores of one index over all items, bit for bit. The lists of an approximate one are
those of one index, cut into S parts: each shard proposes as many items as the one index would, so that every rank has
at least the score that the one index gives it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from handsell.core.batches import NONE
from handsell.retrieval.index.approximate import DESCRIPTION, read_description
from handsell.retrieval.index.topk import fit_mask, pad_rows
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.numbering import find_items

FOLDER = "shard-{}"  # of each shard's files, in the folder of the index
Found = tuple[np.ndarray, np.ndarray]  # items and scores (B, k)


@dataclass(frozen=True, slots=True)
class SplitVectors:
    """The vectors of all shards, read by item number as one array."""

    parts: tuple[np.ndarray, ...]  # of each shard, (rows, D)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.parts[0].shape[1]

    def __getitem__(self, items: np.ndarray) -> np.ndarray:
        """Return the vectors (…, D) of items of any shape, numbered below the length."""
        out = np.empty((*items.shape, self.shape[1]), self.parts[0].dtype)
        for shard, part in enumerate(self.parts):
            own = items % len(self.parts) == shard
            out[own] = part[items[own] // len(self.parts)]
        return out


@dataclass(frozen=True)
class ShardedIndex:
    """Has the methods of VectorIndex, for items by their numbers in the catalog."""

    parts: tuple[VectorIndex, ...]  # at least one

    @cached_property
    def vectors(self) -> SplitVectors:
        return SplitVectors(tuple(part.vectors for part in self.parts))

    @property
    def is_exact(self) -> bool:
        return all(part.approximate is None for part in self.parts)

    def search(self, queries: np.ndarray, k: int, eligible: np.ndarray) -> Found:
        """Return items and scores (B, k) for queries (B, D); `eligible` is (B, I)."""
        shards, eligible = len(self.parts), fit_mask(eligible, len(self.vectors))
        masks = [np.ascontiguousarray(eligible[:, s::shards]) for s in range(shards)]
        enough = find_enough(k, shards)
        found = [part.search(queries, k, masks[s], enough) for s, part in enumerate(self.parts)]
        short = find_cut_rows(found, k, enough)
        if short.any() and not self.is_exact:
            again = [part.search(queries[short], k, masks[s][short]) for s, part in enumerate(self.parts)]
            for (items, scores), (more_items, more_scores) in zip(found, again, strict=True):
                items[short], scores[short] = more_items, more_scores
        return merge_found([(find_items(rows, s, shards), scores) for s, (rows, scores) in enumerate(found)], k)

    def score(self, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return inner products (B, K), as VectorIndex does."""
        shards, out = len(self.parts), np.full(items.shape, np.nan, np.float32)
        for s, part in enumerate(self.parts):
            own = (items >= 0) & (items % shards == s)
            scores = part.score(queries, np.where(own, items // shards, NONE))
            out[own] = scores[own]
        return out

    def describe(self) -> dict[str, Any]:
        """Return the content of index.json: that of a shard, with the number of shards and of all known items."""
        abouts = [part.describe() for part in self.parts]
        sums = {"items": sum(about["items"] for about in abouts), "longest": max(about["longest"] for about in abouts)}
        return {**abouts[0], **sums, "shards": len(self.parts)}

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for shard, part in enumerate(self.parts):
            part.save(path / FOLDER.format(shard))
        (path / DESCRIPTION).write_text(json.dumps(self.describe(), indent=1))

    @classmethod
    def load(cls, path: Path) -> ShardedIndex:
        """Load memory mapped: pages that nobody reads take no memory."""
        shards = read_description(path)["shards"]
        return cls(tuple(VectorIndex.load(path / FOLDER.format(shard)) for shard in range(shards)))


ItemIndex = VectorIndex | ShardedIndex


def load_index(path: Path) -> ItemIndex:
    """Load a saved index, sharded or not."""
    return ShardedIndex.load(path) if read_description(path).get("shards", 1) > 1 else VectorIndex.load(path)


def shard_exactly(vectors: np.ndarray, shards: int) -> ShardedIndex:
    """Build an exact index of vectors (I, D) in shards."""
    return ShardedIndex(tuple(VectorIndex.exact(vectors[s::shards]) for s in range(shards)))


def find_enough(k: int, shards: int) -> int:
    """Return the number of items that one shard has to find for a request of k: with so many from each there are k."""
    return -(-k // shards)


def find_cut_rows(found: Sequence[Found], k: int, enough: int) -> np.ndarray:
    """Return (B,) bool, requests with fewer than k items where a shard may have more than it returned.

    A shard that returns fewer than `enough` has no more.
    """
    counts = np.stack([(items != NONE).sum(axis=1) for items, _ in found])  # (S, B)
    return (counts.sum(axis=0) < k) & ((counts >= enough) & (counts < k)).any(axis=0)


def merge_found(found: Sequence[Found], k: int) -> Found:
    """Return the k best of several sources of distinct items, best first; ties are ordered by item number."""
    items = np.concatenate([items for items, _ in found], axis=1)
    scores = np.concatenate([scores for _, scores in found], axis=1)
    rows = []
    for item, score in zip(items, scores, strict=True):
        real = np.flatnonzero(item != NONE)
        if len(real) > k > 0:
            real = real[score[real] >= np.partition(score[real], len(real) - k)[len(real) - k]]
        best = real[np.lexsort((item[real], -score[real]))[:k]]
        rows.append((item[best], score[best]))
    return pad_rows(rows, k)
