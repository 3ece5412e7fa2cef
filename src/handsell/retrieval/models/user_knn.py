"""People with the same likes: the request's history finds its nearest users, and their items are what it gets.

Source: [herlocker1999] for the neighborhood of users; cosine with shrinkage [bell2007], items in common discounted by
their degree. The users' likes are kept as one sparse matrix: a history never seen in training is a row like any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy import sparse

from handsell.core.batches import Requests
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.index.topk import find_top
from handsell.retrieval.like_matrix import build_like_matrix, raise_degrees, sum_degrees
from handsell.retrieval.sparse_rows import load_rows, read_entries, save_rows, select_top_entries

# what to try, and where to begin, when the model is tuned on a validation part
SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "neighbors": (300, 600, 150),
    "sharpness": (1.5, 1.0, 2.0),
    "item_exponent": (0.5, 0.75, 0.25),
    "shrinkage": (0.0, 1.0, 5.0),
}


class UserKNNConfig(OptionalFoldIn):
    # half_life_days has a part in the fit, too
    HISTORY_KEYS: ClassVar[tuple[str, ...]] = ("weight_exponent", "half_life_events", "dislikes")

    neighbors: int = Field(200, ge=1, description="most similar users that are asked")
    shrinkage: float = Field(5.0, ge=0, description="added to the denominator; damps users with little in common")
    item_exponent: float = Field(
        0.5, ge=0, le=2, description="an item in common counts by its degree to this power less"
    )
    sharpness: float = Field(1.0, gt=0, description="power of the similarity with which a neighbor speaks")
    half_life_days: float = Field(28.0, gt=0, description="decay of the history's and of the neighbors' events")


@dataclass(frozen=True)
class UserKNN:
    """The fit window's users as rows; their ids are not needed."""

    name: ClassVar[str] = "user_knn"
    likes: sparse.csr_matrix  # (U, I) float32
    scale: np.ndarray  # (I,) float32, weight of an item when users are compared; zero where nobody liked it
    config: UserKNNConfig

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return select_top_entries(self._score_all(requests), k, eligible)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Zero where no neighbor liked the item."""
        return read_entries(self._score_all(requests), items, self.scale > 0)

    def with_history_weights(self, **settings: Any) -> Self:
        """The same model with other `HistoryWeights`; the neighbors' own likes stay as they were fitted."""
        return replace(self, config=self.config.model_copy(update=settings))

    def _score_all(self, requests: Requests) -> sparse.csr_matrix:
        """(B, I) sums of the neighbors' likes by their similarity, columns sorted; disliked items below zero."""
        given = build_history_matrix(
            *weigh_history(requests, HistoryWeights.from_config(self.config), len(self.scale)), len(self.scale)
        )
        near = self._find_neighbors(given)
        found = (near @ self.likes + given.minimum(0)).tocsr()
        found.sort_indices()
        return found

    def _find_neighbors(self, given: sparse.csr_matrix) -> sparse.csr_matrix:
        """(B, U) similarity to each request's nearest users. A dislike in common with a like counts against them."""
        mine = given.copy()
        mine.data = mine.data * self.scale[mine.indices]
        length = np.sqrt(np.asarray(mine.multiply(mine).sum(axis=1)).ravel())
        product = (mine @ self._by_item).tocsr()
        product.sort_indices()
        lengths = self._lengths
        users, data = [], []
        for b in range(len(length)):
            at = slice(product.indptr[b], product.indptr[b + 1])
            user = product.indices[at]
            near = product.data[at] / (length[b] * lengths[user] + self.config.shrinkage + 1e-12)
            chosen = np.sort(find_top(near, self.config.neighbors))
            chosen = chosen[near[chosen] > 0]
            users.append(user[chosen])
            data.append(near[chosen] ** self.config.sharpness)
        return _build_rows(users, data, len(lengths))

    @cached_property
    def _by_item(self) -> sparse.csr_matrix:
        """(I, U) scaled likes."""
        return sparse.diags(self.scale).astype(np.float32).dot(self.likes.T).tocsr()

    @cached_property
    def _lengths(self) -> np.ndarray:
        """(U,) norms of the scaled likes."""
        return np.sqrt(np.asarray(self._by_item.multiply(self._by_item).sum(axis=0)).ravel())

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        save_rows(self.likes, path)
        np.save(path / "scale.npy", self.scale)
        (path / "user_knn.json").write_text(json.dumps(self.config.model_dump()))

    @classmethod
    def load(cls, path: Path) -> UserKNN:
        scale = np.load(path / "scale.npy", mmap_mode="r")
        return cls(
            load_rows(path, len(scale)), scale, UserKNNConfig(**json.loads((path / "user_knn.json").read_text()))
        )


def fit_user_knn(interactions: Interactions, config: UserKNNConfig, content: object = None) -> UserKNN:
    """Keeps the likes, each user's decayed from their newest event on, for neighbors' recent items say more."""
    liked = interactions.positives
    last = liked.time[np.maximum(liked.user_offsets[liked.user + 1] - 1, 0)]
    age = (last - liked.time) / (config.half_life_days * DAY_US)
    recent = Interactions(
        liked.user, liked.item, liked.type, liked.time, (liked.weight * np.exp2(-age)).astype(np.float32),
        liked.n_users, liked.n_items,
    )  # fmt: skip
    matrix = build_like_matrix(recent)
    matrix.sort_indices()
    matrix = matrix[np.diff(matrix.indptr) > 0]
    return UserKNN(matrix, raise_degrees(sum_degrees(build_like_matrix(liked), 0), -config.item_exponent / 2), config)


def _build_rows(columns: list[np.ndarray], data: list[np.ndarray], width: int) -> sparse.csr_matrix:
    offsets = offsets_from_counts([len(row) for row in columns])
    if not columns:
        return sparse.csr_matrix((0, width), dtype=np.float32)
    return sparse.csr_matrix(
        (np.concatenate(data).astype(np.float32), np.concatenate(columns), offsets), shape=(len(columns), width)
    )


RETRIEVER = RetrieverPlugin(
    "user_knn",
    UserKNNConfig,
    UserKNN,
    fit_user_knn,
    purpose="few users with much in common",
    needs="interactions",
    order=10,
    max_users=50_000,
    auto_selectable=True,
    search=SEARCH,
)
