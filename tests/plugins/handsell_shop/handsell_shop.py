"""A retriever of the items that were liked last, most recent first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.retrieval.config import OptionalSource, RetrieverPlugin
from handsell.retrieval.index.topk import fit_mask, gather, pad_rows, select_top


class LatestConfig(OptionalSource):
    min_likes: int = Field(1, ge=1, description="number of likes that an item must have")


@dataclass(frozen=True)
class Latest:
    name: ClassVar[str] = "latest"
    order: np.ndarray  # (I,) float32, higher for later likes; NaN for items with fewer than min_likes

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        liked = np.flatnonzero(np.isfinite(self.order))
        rows = []
        for allowed in fit_mask(eligible, len(self.order)):
            items = liked[allowed[liked]]
            rows.append(select_top(items, self.order[items], k))
        return pad_rows(rows, k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        return gather(self.order, items, np.isfinite(self.order))

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "order.npy", self.order)

    @classmethod
    def load(cls, path: Path) -> Latest:
        return cls(np.load(path / "order.npy"))


def fit_latest(interactions: Interactions, config: LatestConfig, content: object = None) -> Latest:
    liked = interactions.positives
    last = np.zeros(interactions.n_items, np.int64)
    np.maximum.at(last, liked.item, liked.time)
    enough = np.bincount(liked.item, minlength=interactions.n_items) >= config.min_likes
    order = np.argsort(np.argsort(last, kind="stable"), kind="stable") + 1
    return Latest(np.where(enough, order, np.nan).astype(np.float32))


LATEST = RetrieverPlugin(
    "latest", LatestConfig, Latest, fit_latest, purpose="the latest likes matter most", personal=False
)
