"""Retrieval by vectors: an encoder turns the request into a query, the index finds the nearest items."""

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
from handsell.retrieval.index.index import VectorIndex
from handsell.retrieval.index.indexing import fit_index
from handsell.retrieval.neural.sampled import next_requests


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

    def weigh_history(self, **settings: Any) -> Self:
        """The same model with other `HistoryWeights`; for encoders that have them."""
        return replace(self, encoder=replace(self.encoder, weights=HistoryWeights(**settings)))  # type: ignore[type-var]

    @property
    def vectors(self) -> np.ndarray:
        """(I, D) float32; zeros for an item that the model does not know."""
        return self.index.vectors

    def indexed(self, config: RetrievalConfig, interactions: Interactions) -> Self:
        """The same model with an index fit for its size, tuned on users of the interactions and for the k of serving.

        Any of the users will do: an exact index looks at none.
        """

        def queries() -> np.ndarray:
            asked = next_requests(interactions)
            return self.encoder.encode(asked) if len(asked) else self.vectors[:0]

        return replace(self, index=fit_index(self.index.vectors, config, config[self.name].k, queries))

    def save(self, path: Path) -> None:
        self.encoder.save(path / "encoder")
        self.index.save(path / "index")

    @classmethod
    def load(cls, path: Path) -> Self:
        index = VectorIndex.load(path / "index")
        return cls(cls.encoder_type.load(path / "encoder", index.vectors), index)
