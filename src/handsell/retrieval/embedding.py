"""Retrieval by vectors: an encoder turns a request into a query vector, the index finds the nearest items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from handsell.core.batches import Requests
from handsell.core.protocols import Encoder
from handsell.data.interactions import Interactions
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.history_weights import HistoryWeights
from handsell.retrieval.index.index_fitting import fit_index
from handsell.retrieval.index.query_sampling import sample_requests
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.sharded_index import ItemIndex, SplitVectors, load_index

NO_ITEMS = np.zeros(0, np.int32)


class FoldIn(Encoder, Protocol):
    """An encoder that computes the user's vector from the history in the request, given the index's item vectors."""

    def save(self, path: Path) -> None:
        """Save everything except the item vectors."""
        ...

    @classmethod
    def load(cls, path: Path, vectors: Any) -> Self:
        """`vectors`: an array (I, D), or one that is read by item numbers."""
        ...


@dataclass(frozen=True)
class EmbeddingRetriever:
    """Base of retrievers by vectors; a subclass sets `name` and `encoder_type`."""

    name: ClassVar[str]
    encoder_type: ClassVar[type[FoldIn]]
    encoder: FoldIn
    index: ItemIndex

    @property
    def superseded(self) -> np.ndarray:
        """Items of the index that have another vector now: none."""
        return NO_ITEMS

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(self.encoder.encode(requests), k, eligible)

    def add_live(
        self, found: tuple[np.ndarray, np.ndarray], queries: np.ndarray, k: int, eligible: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what the index found: the source has no live items."""
        return found

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        return self.index.score(self.encoder.encode(requests), items)

    def with_history_weights(self, **settings: Any) -> Self:
        """Return a copy with other `HistoryWeights`; the encoder must have the field `weights`."""
        return replace(self, encoder=replace(self.encoder, weights=HistoryWeights(**settings)))  # type: ignore[type-var]

    @property
    def vectors(self) -> np.ndarray | SplitVectors:
        """(I, D) float32 item vectors; zeros for an item unknown to the model."""
        return self.index.vectors

    def with_index(self, config: RetrievalConfig, interactions: Interactions) -> Self:
        """Return a copy with the index that suits the catalog's size, tuned for the source's k.

        An approximate index is tuned on sampled users of the interactions; an exact one uses none.
        """

        assert isinstance(self.index, VectorIndex)  # as fitted
        vectors = self.index.vectors

        def encode_users() -> np.ndarray:
            requests = sample_requests(interactions)
            return self.encoder.encode(requests) if len(requests) else vectors[:0]

        return replace(self, index=fit_index(vectors, config, config[self.name].k, encode_users))

    def save(self, path: Path) -> None:
        self.encoder.save(path / "encoder")
        self.index.save(path / "index")

    @classmethod
    def load(cls, path: Path) -> Self:
        index = load_index(path / "index")
        return cls(cls.encoder_type.load(path / "encoder", index.vectors), index)
