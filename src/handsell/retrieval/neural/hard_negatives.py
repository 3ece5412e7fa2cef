"""Hard negatives of the two-tower model: items that it ranks high for a user without a like.

Source: [xiong2021], with two changes: each epoch ranks a random pool of items instead of all, and negatives are drawn
from the top ranks, since the first ones are often items that the user would like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.models.two_tower import Weights, apply_user_tower, build_input_vectors, build_item_vectors

POOL = 8192  # items ranked, drawn again for each epoch
RANKS_PER_NEGATIVE = 10  # the M negatives of a row are drawn from its first 10 M ranks


@dataclass(frozen=True)
class HardNegatives:
    """Draws hard negatives with a snapshot of the model at the start of an epoch."""

    weights: Weights
    inputs: np.ndarray  # (I, E)
    pool: np.ndarray  # (P,) items
    vectors: np.ndarray  # (P, E) of the pool
    liked: sparse.csr_matrix  # (U, P), not 0 where a user likes an item of the pool
    count: int  # M negatives per row

    @classmethod
    def from_weights(
        cls, weights: Weights, content: np.ndarray | None, events: Interactions, count: int, rng: np.random.Generator
    ) -> HardNegatives:
        """Build from the model's weights; the pool contains only items with events."""
        touched = np.bincount(events.item, minlength=events.n_items) > 0
        known = np.zeros((events.n_items, 0), np.float32) if content is None else content
        inputs = build_input_vectors(weights["embedding"], known, touched, weights)
        pool = np.sort(rng.permutation(np.flatnonzero(touched))[:POOL])
        towers = {name: np.array(w) for name, w in weights.items() if name.startswith(("item.", "user."))}
        liked = events.positives.matrix()[:, pool].tocsr()
        return cls(towers, inputs, pool, build_item_vectors(inputs[pool], towers), liked, count)

    def __call__(
        self, user: np.ndarray, item: np.ndarray, pools: np.ndarray, context: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return items (B, M) for users (B,) with inputs as of `build_user_inputs`; -1 where too few items remain."""
        users = apply_user_tower(np.matmul(pools, self.inputs[item]), context, self.weights)
        scores = users @ self.vectors.T
        scores[self.liked[user].nonzero()] = -np.inf
        ranks = min(RANKS_PER_NEGATIVE * self.count, len(self.pool))
        top = np.argpartition(-scores, ranks - 1, axis=1)[:, :ranks]
        drawn = np.take_along_axis(top, rng.permuted(np.tile(np.arange(ranks), (len(user), 1)), axis=1), 1)
        drawn = drawn[:, : self.count]
        return np.where(np.isfinite(np.take_along_axis(scores, drawn, 1)), self.pool[drawn], -1)
