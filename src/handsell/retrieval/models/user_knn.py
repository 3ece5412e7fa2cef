"""User-based nearest neighbors: items liked by the users who are most similar to the request's history.

Sources: [herlocker1999] for user neighborhoods, [bell2007] for the shrinkage of the cosine; common items are discounted
by their degree. The model stores the users' likes as one sparse matrix and compares any history with its rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.core.offsets import offsets_from_counts
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.index.topk import find_top
from handsell.retrieval.like_matrix import build_like_matrix, raise_degrees, sum_degrees
from handsell.retrieval.sparse_rows import load_rows, read_entries, save_rows, select_top_entries

SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "neighbors": (300, 600, 150),
    "sharpness": (1.5, 1.0, 2.0),
    "item_exponent": (0.5, 0.75, 0.25),
    "shrinkage": (0.0, 1.0, 5.0),
}


class UserKNNConfig(OptionalFoldIn):
    # without half_life_days, which is used in fitting, too
    HISTORY_KEYS: ClassVar[tuple[str, ...]] = ("weight_exponent", "half_life_events", "dislikes")

    neighbors: int = Field(200, ge=1, description="number of most similar users used")
    shrinkage: float = Field(
        5.0, ge=0, description="added to the denominator; reduces similarities of users with few common items"
    )
    item_exponent: float = Field(0.5, ge=0, le=2, description="a common item is divided by its degree to this exponent")
    sharpness: float = Field(1.0, gt=0, description="exponent applied to neighbor similarity")
    half_life_days: float = Field(
        28.0, gt=0, description="half-life by age of events of the history and of the neighbors"
    )


@dataclass(frozen=True)
class UserKNN:
    """The likes of the fit window's users."""

    name: ClassVar[str] = "user_knn"
    likes: sparse.csr_matrix  # (U, I) float32
    scale: np.ndarray  # (I,) float32, weight of an item when users are compared; 0 for items without likes
    config: UserKNNConfig

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return select_top_entries(self._score_all(requests), k, eligible)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return scores (B, K); 0 where no neighbor liked the item."""
        return read_entries(self._score_all(requests), items, self.scale > 0)

    def with_history_weights(self, **settings: Any) -> Self:
        """Return a copy with other `HistoryWeights`; the neighbors' likes do not change."""
        return replace(self, config=self.config.model_copy(update=settings))

    def _score_all(self, requests: Requests) -> sparse.csr_matrix:
        """Return sums (B, I) of the neighbors' likes × similarity, with sorted columns; disliked items are lowered."""
        history = build_history_matrix(
            *weigh_history(requests, HistoryWeights.from_config(self.config), len(self.scale)), len(self.scale)
        )
        near = self._find_neighbors(history)
        found = (near @ self.likes + history.minimum(0)).tocsr()
        found.sort_indices()
        return found

    def _find_neighbors(self, history: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return similarities (B, U) to the nearest users; disliked items that they like lower them."""
        mine = history.copy()
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
    """Store the users' likes, decayed with age from each user's newest event."""
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
    purpose="there are few users who have many items in common",
    needs="interactions",
    order=10,
    max_users=50_000,
    auto_selectable=True,
    search=SEARCH,
)
