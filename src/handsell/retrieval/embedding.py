"""Retrieval by vectors: an encoder turns the request into a query, the index finds the nearest items."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np

from handsell.core.batches import Requests
from handsell.core.protocols import Encoder
from handsell.retrieval.index import VectorIndex, fit_index


class FoldIn(Encoder, Protocol):
    """An encoder that knows the user only by the history in the request, and shares the index's vectors."""

    def save(self, path: Path) -> None:
        """Write everything but the item vectors."""
        ...

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> Self: ...


@dataclass(frozen=True)
class EmbeddingRetriever:
    """Subclasses name themselves and their encoder, and nothing else."""

    name: ClassVar[str]
    encoder_type: ClassVar[type[FoldIn]]
    encoder: FoldIn
    index: VectorIndex

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(self.encoder.encode(requests), k, eligible)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        return self.index.score(self.encoder.encode(requests), items)

    @property
    def vectors(self) -> np.ndarray:
        """(I, D) float32; zeros for an item that the model does not know."""
        return self.index.vectors

    def indexed(self, flat_below: int) -> Self:
        """The same model with an index fit for its size: approximate above flat_below items."""
        return replace(self, index=fit_index(self.index.vectors, flat_below))

    def save(self, path: Path) -> None:
        self.encoder.save(path / "encoder")
        self.index.save(path / "index")

    @classmethod
    def load(cls, path: Path) -> Self:
        index = VectorIndex.load(path / "index")
        return cls(cls.encoder_type.load(path / "encoder", index.vectors), index)
