"""Items like those that the user liked, by attributes and text: reaches items that nobody has touched.

The profile of [pazzani2007]: the mean of the history's item vectors, weighted and decayed; disliked items push away.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import NONE, Requests
from handsell.data.interactions import Interactions
from handsell.retrieval.config import FoldInSource, RetrieverPlugin
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.history_weights import HistoryWeights, weigh_history
from handsell.retrieval.index.vector_index import VectorIndex


class ContentConfig(FoldInSource):
    k: int = Field(300, ge=1, description="candidates asked of this source")
    weight: float = Field(0.5, ge=0, description="weight of its ranks in the fused order (the blend)")
    embedding_size: int = Field(128, ge=2, description="dimensions kept of the hashed text and attribute vectors")
    text_model: str = Field(
        "",
        description="folder or name of a sentence-transformers model for titles and texts (`pip install "
        "'handsell[text]'`); empty: hashed words",
    )
    half_life_days: float = Field(14.0, gt=0, description="decay of history events at fold-in")


@dataclass(frozen=True)
class ContentEncoder:
    """The weighted mean of the history's item vectors, of unit length."""

    vectors: np.ndarray  # (I, D) float32
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


class ContentRetriever(EmbeddingRetriever):
    name: ClassVar[str] = "content"
    encoder_type = ContentEncoder


def fit_content(interactions: Interactions, config: ContentConfig, content: Content | None = None) -> ContentRetriever:
    """The content vectors as they are: interactions have no part in it. Without content nothing is found."""
    vectors = content.vectors if content is not None else np.zeros((interactions.n_items, 1), np.float32)
    index = VectorIndex.exact(vectors)
    return ContentRetriever(ContentEncoder(index.vectors, HistoryWeights.from_config(config)), index)


RETRIEVER = RetrieverPlugin(
    "content",
    ContentConfig,
    ContentRetriever,
    fit_content,
    purpose="items that nobody has touched",
    needs="text or attributes",
    order=6,
    auto_selectable=True,
)
