"""Items whose attributes and texts are similar to those of the user's history; finds items without interactions.

Source: [pazzani2007]: the user profile is the weighted mean of the history's item vectors; dislikes count negatively.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.protocols import Encoder, Retriever
from handsell.data.interactions import Interactions
from handsell.retrieval.config import FoldInSource, RetrieverPlugin
from handsell.retrieval.content.content_model import ContentModel
from handsell.retrieval.content.live_content import LiveContent, LiveVectors
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.history_weights import HistoryWeights, weigh_history
from handsell.retrieval.index.vector_index import VectorIndex


class ContentConfig(FoldInSource):
    k: int = Field(300, ge=1, description="candidates requested from this source")
    weight: float = Field(0.5, ge=0, description="weight of this source in reciprocal rank fusion")
    embedding_size: int = Field(128, ge=2, description="dimensions of the content vectors")
    text_model: str = Field(
        "",
        description="folder or name of a sentence-transformers model for titles and texts (`pip install "
        "'handsell[text]'`); empty: hashed words",
    )
    half_life_days: float = Field(14.0, gt=0, description="half-life of history events by age")


@dataclass(frozen=True)
class ContentEncoder:
    """The weighted mean of the history's item vectors, of unit length."""

    vectors: np.ndarray | LiveVectors  # (I, D) float32
    weights: HistoryWeights

    def encode(self, requests: Requests) -> np.ndarray:
        item, weight = weigh_history(requests, self.weights, len(self.vectors))
        out = np.zeros((len(requests), self.vectors.shape[1]), np.float32)
        for b in np.flatnonzero((weight > 0).any(axis=1)):
            used = item[b] != NONE
            mean = np.einsum("t,td->d", weight[b][used], self.vectors[item[b][used]])
            out[b] = mean / (np.linalg.norm(mean) or 1)
        return out

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "encoder.json").write_text(json.dumps(asdict(self.weights)))

    @classmethod
    def load(cls, path: Path, vectors: np.ndarray) -> ContentEncoder:
        return cls(vectors, HistoryWeights(**json.loads((path / "encoder.json").read_text())))


@dataclass(frozen=True)
class ContentRetriever(EmbeddingRetriever):
    name: ClassVar[str] = "content"
    encoder_type = ContentEncoder
    model: ContentModel | None = None  # of the vectors; without it, later items are not found

    def with_snapshot(self, snapshot: Snapshot) -> Retriever:
        """Return the source on a version of the live catalog."""
        return self if self.model is None else LiveContent.of(self).with_snapshot(snapshot)

    def build_encoder(self, vectors: LiveVectors) -> Encoder:
        """Return the encoder on other item vectors."""
        return replace(self.encoder, vectors=vectors)  # type: ignore[type-var]

    def save(self, path: Path) -> None:
        super().save(path)
        if self.model is not None:
            self.model.save(path / "model")

    @classmethod
    def load(cls, path: Path) -> Self:
        found = super().load(path)
        return replace(found, model=ContentModel.load(path / "model")) if (path / "model").is_dir() else found


def fit_content(interactions: Interactions, config: ContentConfig, content: Content | None = None) -> ContentRetriever:
    """Build an index of the content vectors; interactions are not used. Without content no item is found."""
    vectors = content.vectors if content is not None else np.zeros((interactions.n_items, 1), np.float32)
    index = VectorIndex.exact(vectors)
    model = None if content is None else content.model
    return ContentRetriever(ContentEncoder(index.vectors, HistoryWeights.from_config(config)), index, model)


RETRIEVER = RetrieverPlugin(
    "content",
    ContentConfig,
    ContentRetriever,
    fit_content,
    purpose="many items have no interactions yet",
    needs="text or attributes",
    order=6,
    auto_selectable=True,
)
