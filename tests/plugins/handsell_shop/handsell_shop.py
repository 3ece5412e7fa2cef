"""What is being liked right now: items in the order of their latest like."""

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
    least_likes: int = Field(1, ge=1, description="likes below which an item is left out")


@dataclass(frozen=True)
class Latest:
    name: ClassVar[str] = "latest"
    order: np.ndarray  # (I,) float32, the later the higher; NaN where too few liked it

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        liked = np.flatnonzero(np.isfinite(self.order))
        rows = []
        for may in fit_mask(eligible, len(self.order)):
            items = liked[may[liked]]
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
    enough = np.bincount(liked.item, minlength=interactions.n_items) >= config.least_likes
    order = np.argsort(np.argsort(last, kind="stable"), kind="stable") + 1
    return Latest(np.where(enough, order, np.nan).astype(np.float32))


LATEST = RetrieverPlugin(
    "latest", LatestConfig, Latest, fit_latest, purpose="what is liked right now matters most", personal=False
)
