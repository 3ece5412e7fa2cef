"""Content vectors of items that came or changed after training, searched beside the bundle's index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.protocols import Encoder
from handsell.retrieval.content.content_model import ContentModel
from handsell.retrieval.index.topk import pad_rows, select_top
from handsell.retrieval.index.vector_index import Found, compute_products
from handsell.retrieval.sharding.sharded_index import ItemIndex, SplitVectors

SAME = 1e-3  # difference of a vector's elements up to which a changed item keeps the vector of the bundle's index


class ContentSource(Protocol):
    """The bundle's content retriever."""

    @property
    def index(self) -> ItemIndex: ...
    @property
    def model(self) -> ContentModel | None: ...
    def build_encoder(self, vectors: LiveVectors) -> Encoder: ...
    def save(self, path: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class LiveVectors:
    """The vectors of an index with those of live items: rows are read by item number."""

    main: np.ndarray | SplitVectors  # (I, D)
    item: np.ndarray  # (M,) int32 ascending
    vectors: np.ndarray  # (M, D) float32

    def __len__(self) -> int:
        return max(len(self.main), int(self.item[-1]) + 1 if len(self.item) else 0)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.vectors.shape[1]

    def __getitem__(self, items: np.ndarray) -> np.ndarray:
        """Return the vectors of items (n,); zeros for a number between those of known items."""
        out = np.zeros((len(items), self.vectors.shape[1]), np.float32)
        old = items < len(self.main)
        out[old] = self.main[items[old]]
        place, live = self.find(items)
        out[live] = self.vectors[place[live]]
        return out

    def find(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of items (any shape) in `vectors`, and whether they have one."""
        place = np.minimum(np.searchsorted(self.item, items), max(len(self.item) - 1, 0))
        return place, (self.item[place] == items) if len(self.item) else np.zeros(items.shape, bool)


@dataclass(frozen=True)
class LiveContent:
    """The content source on a live catalog: the best of the bundle's index and of the live items, exactly merged."""

    name: ClassVar[str] = "content"
    main: ContentSource
    live: LiveVectors
    revision: int = 0  # of the last catalog change that the vectors include

    @classmethod
    def of(cls, main: ContentSource) -> LiveContent:
        size = main.index.vectors.shape[1]
        empty = LiveVectors(main.index.vectors, np.zeros(0, np.int32), np.zeros((0, size), np.float32))
        return cls(main, empty)

    def with_snapshot(self, snapshot: Snapshot) -> LiveContent:
        """Return the source with the vectors of items that have come or changed since its own version."""
        model = self.main.model
        if model is None or not isinstance(snapshot, LiveSnapshot):
            return self
        item = snapshot.changed[snapshot.revision > self.revision]
        if not len(item):
            return self
        vectors = model.encode(snapshot, item)
        differs = np.abs(vectors - self.live[item]).max(axis=1) > SAME
        item, vectors = item[differs], vectors[differs]
        every, both = np.concatenate([self.live.item, item]), np.concatenate([self.live.vectors, vectors])
        unique, last = np.unique(every[::-1], return_index=True)
        live = LiveVectors(self.live.main, unique, both[len(every) - 1 - last])
        return replace(self, live=live, revision=int(snapshot.revision.max()))

    @property
    def encoder(self) -> Encoder:
        return self.main.build_encoder(self.live)

    @property
    def index(self) -> ItemIndex:
        return self.main.index

    @property
    def superseded(self) -> np.ndarray:
        """Items of the index that have another vector now."""
        return self.live.item[self.live.item < len(self.index.vectors)]

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        queries, mask, superseded = self.encoder.encode(requests), eligible, self.superseded
        if len(superseded):
            mask = eligible.copy()
            mask[:, superseded[superseded < mask.shape[1]]] = False
        return self.add_live(self.index.search(queries, k, mask), queries, k, eligible)

    def add_live(
        self, found: tuple[np.ndarray, np.ndarray], queries: np.ndarray, k: int, eligible: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best of what the index found, without superseded items, and of the live items."""
        live, (items, scores) = self.live, found
        inside = live.item < eligible.shape[1]
        known = inside & live.vectors.any(axis=1)
        rows = [
            self._merge(items[b], scores[b], query, k, known & eligible[b, np.where(inside, live.item, 0)])
            for b, query in enumerate(queries)
        ]
        return pad_rows(rows, k)

    def _merge(self, items: np.ndarray, scores: np.ndarray, query: np.ndarray, k: int, may: np.ndarray) -> Found:
        """Return the k best of one request's items from the index and of the live items that it may show."""
        found = items != NONE
        if not query.any() or not may.any():
            return items[found], scores[found]
        every = np.concatenate([items[found], self.live.item[may]])
        score = np.concatenate([scores[found], compute_products(self.live.vectors[may], query)])
        order = np.argsort(every, kind="stable")
        return select_top(every[order].astype(np.int32), score[order], k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        queries = self.encoder.encode(requests)
        out = self.index.score(queries, items)
        place, live = self.live.find(items)
        for b, query in enumerate(queries):
            if live[b].any() and query.any():
                vectors = self.live.vectors[place[b, live[b]]]
                products = compute_products(vectors, query)
                out[b, live[b]] = np.where(vectors.any(axis=1), products, np.nan)
        return out

    def save(self, path: Path) -> None:
        """Save the bundle's source, without live items."""
        self.main.save(path)

    @classmethod
    def load(cls, path: Path) -> LiveContent:
        raise NotImplementedError("live items are read from the event store; load the bundle's content source")
