"""Item-based nearest neighbors: items liked by the same users as the items of the history.

Sources: [sarwar2001] for item-based neighborhoods, [bell2007] for the shrinkage, [aiolli2013] for the asymmetric
cosine. With user_exponent 1 and no shrinkage the neighbors are those of the linear graph filter R̃ᵀR̃ [shen2021].
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.core.kernels import compiled
from handsell.core.offsets import offsets_from_counts
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import FoldInSource, RetrieverPlugin
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.index.topk import find_top, fit_mask
from handsell.retrieval.like_matrix import raise_degrees, scale_matrix, sum_degrees
from handsell.retrieval.sparse_rows import load_rows, read_entries, save_rows, select_top_entries

ITEMS_AT_ONCE = 1024
RECENT_PER_USER = 500  # newest events used per user; the cost grows with their square

SEARCH: dict[str, tuple] = {
    "half_life_days": (1e6, 0.5, 2.0, 14.0),
    "asymmetry": (0.5, 0.4, 0.3, 0.2),
    "user_exponent": (0.5, 1.0, 0.0),
    "neighbors": (1000, 300),
    "shrinkage": (20.0, 0.0, 60.0),
}


class ItemKNNConfig(FoldInSource):
    neighbors: int = Field(100, ge=1, description="most similar items kept per item")
    shrinkage: float = Field(
        20.0, ge=0, description="added to the denominator; reduces similarities with little support"
    )
    asymmetry: float = Field(
        0.5, ge=0, le=1, description="exponent share of the history item's norm; 0.5 is the cosine"
    )
    user_exponent: float = Field(
        0.0, ge=0, le=2, description="co-occurrences are divided by the user's degree to this exponent"
    )
    half_life_days: float = Field(14.0, gt=0, description="half-life of history events by age")


@dataclass(frozen=True)
class ItemKNN:
    """Neighbor lists as a sparse matrix; scores are sums over the history of weight × similarity.

    A disliked item lowers the scores of its neighbors and its own.
    """

    name: ClassVar[str] = "item_knn"
    neighbors: sparse.csr_matrix  # (I, I) float32, row i has the similarities of i's neighbors
    touched: np.ndarray  # (I,) bool, with likes in the fit window
    weights: HistoryWeights

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if compiled is None:
            return select_top_entries(self._score_all(requests), k, eligible)
        history = weigh_history(requests, self.weights, len(self.touched))
        items, scores = np.empty((len(requests), k), np.int32), np.empty((len(requests), k), np.float32)
        may = np.ascontiguousarray(fit_mask(eligible, len(self.touched)))
        compiled.select_neighbors(*history, *self._lists, may, items, scores, len(requests))
        return items, scores

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return scores (B, K); 0 where the item is no neighbor of the history."""
        return read_entries(self._score_all(requests), items, self.touched)

    def with_history_weights(self, **settings: Any) -> Self:
        """Return a copy with other `HistoryWeights`."""
        return replace(self, weights=HistoryWeights(**settings))

    @cached_property
    def _lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The similarities and neighbors of all items, and where those of each item begin."""
        rows = self.neighbors
        return (
            np.ascontiguousarray(rows.data, np.float32), np.ascontiguousarray(rows.indices, np.int32),
            np.ascontiguousarray(rows.indptr, np.int64),
        )  # fmt: skip

    def _score_all(self, requests: Requests) -> sparse.csr_matrix:
        """Return scores (B, I) with sorted columns."""
        history = build_history_matrix(*weigh_history(requests, self.weights, len(self.touched)), len(self.touched))
        found = (history @ self.neighbors + history.minimum(0)).tocsr()
        found.sort_indices()
        return found

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        save_rows(self.neighbors, path)
        np.save(path / "touched.npy", self.touched)
        (path / "weights.json").write_text(json.dumps(asdict(self.weights)))

    @classmethod
    def load(cls, path: Path) -> ItemKNN:
        touched = np.load(path / "touched.npy", mmap_mode="r")
        weights = HistoryWeights(**json.loads((path / "weights.json").read_text()))
        return cls(load_rows(path, len(touched)), touched, weights)


def fit_item_knn(interactions: Interactions, config: ItemKNNConfig, content: object = None) -> ItemKNN:
    """Keep the nearest items of each item.

    similarity = Σ_u r_ui r_uj |u|^-e / (|r_i|^2a |r_j|^(2 - 2a) + shrinkage),  r = log(1 + positive weight).
    a is config.asymmetry, e is config.user_exponent, |u| is the sum of the user's r.
    """
    ratings = _keep_recent(interactions.positives).matrix()
    ratings.data = np.log1p(ratings.data)
    by_item = ratings.T.tocsr()  # (I, U)
    norm = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel())
    if config.user_exponent:
        ratings = scale_matrix(
            ratings, raise_degrees(sum_degrees(ratings, 1), -config.user_exponent), np.ones_like(norm)
        )
    own, others = norm ** (2 * config.asymmetry), norm ** (2 - 2 * config.asymmetry)
    blocks = [
        _keep_nearest(by_item[start : start + ITEMS_AT_ONCE] @ ratings, start, own, others, config)
        for start in range(0, interactions.n_items, ITEMS_AT_ONCE)
    ]
    shape = (interactions.n_items, interactions.n_items)
    matrix = sparse.vstack(blocks, "csr") if blocks else sparse.csr_matrix(shape, dtype=np.float32)
    return ItemKNN(matrix, norm > 0, HistoryWeights.from_config(config))


def _keep_recent(liked: Interactions) -> Interactions:
    """Return each user's last RECENT_PER_USER events."""
    from_end = liked.user_offsets[liked.user + 1] - np.arange(len(liked))
    return liked if from_end.max(initial=0) <= RECENT_PER_USER else liked.where(from_end <= RECENT_PER_USER)


def _keep_nearest(
    product: sparse.csr_matrix, start: int, own: np.ndarray, others: np.ndarray, config: ItemKNNConfig
) -> sparse.csr_matrix:
    """Cut the co-occurrence rows (b, I) of the items from `start` to their nearest neighbors."""
    product.sort_indices()
    indices, data, lengths = [], [], []
    for row in range(product.shape[0]):
        at = slice(product.indptr[row], product.indptr[row + 1])
        item = product.indices[at]
        near = product.data[at] / (own[start + row] * others[item] + config.shrinkage)
        other = item != start + row
        item, near = item[other], near[other]
        chosen = np.sort(find_top(near, config.neighbors))
        indices.append(item[chosen])
        data.append(near[chosen].astype(np.float32))
        lengths.append(len(chosen))
    offsets = offsets_from_counts(lengths)
    return sparse.csr_matrix((np.concatenate(data), np.concatenate(indices), offsets), shape=product.shape)


RETRIEVER = RetrieverPlugin(
    "item_knn",
    ItemKNNConfig,
    ItemKNN,
    fit_item_knn,
    purpose="a first personal source is needed: it fits in seconds and is easy to explain",
    needs="interactions",
    order=2,
    auto_selectable=True,
    search=SEARCH,
)
