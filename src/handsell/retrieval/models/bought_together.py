"""Complements of the items in the basket, for cross-sell: items bought together more often than by chance.

Sources: [church1990] for pointwise mutual information, [mcauley2015] for the distinction of complements (bought
together) and substitutes (viewed together). The strength of a pair is

    log (n_ij + s) / (e_ij + s),   e_ij = n_i n_j / N,

over N baskets, of which n_i contain i and n_ij contain both; s shrinks pairs of little support toward 0. Where event
weights distinguish purchases from views (`min_weight`), the strength of the pair in sessions of views, times
`substitutes`, is subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import RetrieverPlugin, SessionConfig
from handsell.retrieval.index.item_to_item import ListRetriever
from handsell.retrieval.sessions import Sessions, cut_sessions, find_current_sessions

ITEMS_AT_ONCE = 4096
SEARCH = {"shrinkage": (1.0, 0.3, 3.0, 10.0), "neighbors": (100, 300), "min_support": (2, 1, 4)}


class BoughtTogetherConfig(SessionConfig):
    """Complements for cross-sell; a basket is the items of one session."""

    neighbors: int = Field(100, ge=1, description="number of strongest complements kept per item")
    min_weight: float = Field(0.0, ge=0, description="weight from which an event is a purchase")
    min_support: int = Field(2, ge=1, description="number of baskets that must contain a pair")
    shrinkage: float = Field(1.0, gt=0, description="added to the observed and expected number of baskets of a pair")
    substitutes: float = Field(0.5, ge=0, description="factor of the strength among views that is subtracted")


@dataclass(frozen=True)
class BoughtTogether(ListRetriever):
    """Row i of the lists has the complements of i; all items of the basket have weight 1."""

    name: ClassVar[str] = "bought_together"
    config_type: ClassVar[type[BoughtTogetherConfig]] = BoughtTogetherConfig

    def weigh_session(self, requests: Requests) -> tuple[np.ndarray, np.ndarray]:
        """Return the purchases of the last session; its views where it has none."""
        gap, items = self.config.session_gap_minutes, len(self.known)
        basket = find_current_sessions(requests, items, gap, self.config.min_weight)
        viewed = find_current_sessions(requests, items, gap)
        item = np.where((basket >= 0).any(axis=1, keepdims=True), basket, viewed)
        return item, np.ones(item.shape)


def fit_bought_together(
    interactions: Interactions, config: BoughtTogetherConfig, content: object = None
) -> BoughtTogether:
    """Compute the complements from baskets: the events of at least `min_weight` in a user's session."""
    bought = _build_baskets(interactions.where(interactions.weight >= config.min_weight), config)
    views = (interactions.weight > 0) & (interactions.weight < config.min_weight)
    viewed = _build_baskets(interactions.where(views), config) if config.substitutes > 0 and views.any() else None
    rows = range(0, interactions.n_items, ITEMS_AT_ONCE)
    blocks = [_compute_strength(bought, viewed, slice(start, start + ITEMS_AT_ONCE), config) for start in rows]
    empty = sparse.csr_matrix((interactions.n_items, interactions.n_items))
    return BoughtTogether.from_pairs(sparse.vstack(blocks, "csr") if blocks else empty, config)


def _build_baskets(interactions: Interactions, config: BoughtTogetherConfig) -> sparse.csr_matrix:
    """Return (I, N) float32, 1 where a basket contains an item; baskets of one distinct item are left out."""
    sessions: Sessions = cut_sessions(interactions, config.session_gap_minutes)
    held = sparse.csr_matrix(
        (np.ones(len(sessions.item), np.float32), sessions.item, sessions.offsets),
        (len(sessions), interactions.n_items),
    )
    held.sum_duplicates()
    held.data[:] = 1
    return held[np.diff(held.indptr) > 1].T.tocsr()


def _compute_strength(
    bought: sparse.csr_matrix, viewed: sparse.csr_matrix | None, rows: slice, config: BoughtTogetherConfig
) -> sparse.csr_matrix:
    """Return the positive strengths (b, I) of a block of items."""
    pairs = _compute_lifts(bought, rows, config.shrinkage, config.min_support)
    if viewed is not None:
        beside = _compute_lifts(viewed, rows, config.shrinkage, 1)
        both = pairs.copy()
        both.data[:] = 1
        pairs = pairs - config.substitutes * beside.multiply(both).maximum(0)
    return pairs.maximum(0).tocsr()


def _compute_lifts(baskets: sparse.csr_matrix, rows: slice, shrinkage: float, least: int) -> sparse.csr_matrix:
    """Return the shrunk log lifts (b, I) of pairs of distinct items in at least `least` baskets."""
    count = np.diff(baskets.indptr)
    together = (baskets[rows] @ baskets.T).tocoo()
    kept = (together.data >= least) & (together.row + rows.start != together.col)
    row, item, both = together.row[kept], together.col[kept], together.data[kept].astype(np.float64)
    expected = count[row + rows.start] * count[item].astype(np.float64) / max(baskets.shape[1], 1)
    lift = np.log((both + shrinkage) / (expected + shrinkage))
    return sparse.csr_matrix((lift, (row, item)), together.shape)


RETRIEVER = RetrieverPlugin(
    "bought_together",
    BoughtTogetherConfig,
    BoughtTogether,
    fit_bought_together,
    purpose="complements of a product or basket are to be shown",
    needs="baskets",
    order=14,
    search=SEARCH,
)
