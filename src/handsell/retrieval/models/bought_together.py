"""What goes with what is in the basket: pairs bought together more often than chance, as lists for cross-sell.

Sources: [church1990] for association by pointwise mutual information, [mcauley2015] for telling complements (bought
together) from substitutes (looked at together, one of them bought). A pair's strength is

    log (n_ij + s) / (e_ij + s),   e_ij = n_i n_j / N,

over N baskets of which n_i hold i and n_ij both; s shrinks pairs of little support toward 0. Where the log tells
purchases from other interest (`min_weight`), the strength that the pair has in sessions of mere looking is taken
off, times `substitutes`: two kettles are looked at together, a kettle and its descaler are bought together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy import sparse

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.retrieval.config import RetrieverPlugin, SessionConfig
from handsell.retrieval.index.item_to_item import ListRetriever
from handsell.retrieval.sessions import Sessions, cut_sessions, find_current_sessions

ITEMS_AT_ONCE = 4096
SEARCH = {"shrinkage": (1.0, 0.3, 3.0, 10.0), "neighbors": (100, 300), "min_support": (2, 1, 4)}


class BoughtTogetherConfig(SessionConfig):
    """Lists for cross-sell; an order is what a user took in one session."""

    neighbors: int = Field(100, ge=1, description="strongest companions kept per item")
    min_weight: float = Field(0.0, ge=0, description="events of at least this weight are in the basket: a purchase's")
    min_support: int = Field(2, ge=1, description="baskets that must hold a pair")
    shrinkage: float = Field(1.0, gt=0, description="baskets added to those observed and expected of a pair")
    substitutes: float = Field(0.5, ge=0, description="how much of the strength of looking at both is taken off a pair")


@dataclass(frozen=True)
class BoughtTogether(ListRetriever):
    """Row i of the lists holds what is bought with i; every item of the basket has one vote."""

    name: ClassVar[str] = "bought_together"
    config_type: ClassVar[type[BoughtTogetherConfig]] = BoughtTogetherConfig

    def weigh_session(self, requests: Requests) -> tuple[np.ndarray, np.ndarray]:
        """The basket of the last session; what was merely looked at, where nothing is in it."""
        gap, items = self.config.session_gap_minutes, len(self.known)
        basket = find_current_sessions(requests, items, gap, self.config.min_weight)
        looked = find_current_sessions(requests, items, gap)
        item = np.where((basket >= 0).any(axis=1, keepdims=True), basket, looked)
        return item, np.ones(item.shape)


def fit_bought_together(
    interactions: Interactions, config: BoughtTogetherConfig, content: object = None
) -> BoughtTogether:
    """Baskets are the events of at least `min_weight` in a user's session."""
    bought = _build_baskets(interactions.where(interactions.weight >= config.min_weight), config)
    looks = (interactions.weight > 0) & (interactions.weight < config.min_weight)
    looked = _build_baskets(interactions.where(looks), config) if config.substitutes > 0 and looks.any() else None
    rows = range(0, interactions.n_items, ITEMS_AT_ONCE)
    blocks = [_compute_strength(bought, looked, slice(start, start + ITEMS_AT_ONCE), config) for start in rows]
    empty = sparse.csr_matrix((interactions.n_items, interactions.n_items))
    return BoughtTogether.from_pairs(sparse.vstack(blocks, "csr") if blocks else empty, config)


def _build_baskets(interactions: Interactions, config: BoughtTogetherConfig) -> sparse.csr_matrix:
    """(I, N) float32, 1 where a basket of two distinct items or more holds an item."""
    sessions: Sessions = cut_sessions(interactions, config.session_gap_minutes)
    held = sparse.csr_matrix(
        (np.ones(len(sessions.item), np.float32), sessions.item, sessions.offsets),
        (len(sessions), interactions.n_items),
    )
    held.sum_duplicates()
    held.data[:] = 1
    return held[np.diff(held.indptr) > 1].T.tocsr()


def _compute_strength(
    bought: sparse.csr_matrix, looked: sparse.csr_matrix | None, rows: slice, config: BoughtTogetherConfig
) -> sparse.csr_matrix:
    """The positive strengths of a block of items (b, I)."""
    pairs = _compute_lifts(bought, rows, config.shrinkage, config.min_support)
    if looked is not None:
        beside = _compute_lifts(looked, rows, config.shrinkage, 1)
        both = pairs.copy()
        both.data[:] = 1
        pairs = pairs - config.substitutes * beside.multiply(both).maximum(0)
    return pairs.maximum(0).tocsr()


def _compute_lifts(baskets: sparse.csr_matrix, rows: slice, shrinkage: float, least: int) -> sparse.csr_matrix:
    """(b, I) shrunk log lift of the pairs in at least `least` baskets, without an item's pair with itself."""
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
    purpose="cross-sell beside a product",
    needs="baskets",
    order=14,
    search=SEARCH,
)
