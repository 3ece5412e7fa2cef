"""What everybody likes now: decayed positive weight per item; the answer when nothing is known of the user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from handsell.core.batches import Requests
from handsell.core.config.retrieval import PopularityConfig
from handsell.data.interactions import Interactions
from handsell.retrieval.topk import gather, padded, within
from handsell.retrieval.votes import DAY_US

SEARCH = {"half_life_days": (7.0, 1.0, 30.0, 365.0)}
FIRST_LOOK = 4096  # items of the ranking that are tried before looking further down


@dataclass(frozen=True)
class Popularity:
    """I items with their decayed popularity; zero means that nobody ever liked it."""

    name: ClassVar[str] = "popularity"
    popularity: np.ndarray  # (I,) float32

    @cached_property
    def ranking(self) -> np.ndarray:
        """Items with any popularity, best first."""
        order = np.argsort(-self.popularity, kind="stable").astype(np.int32)
        return order[: np.count_nonzero(self.popularity > 0)]

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        allowed = within(eligible, len(self.popularity))
        rows = [self._first(allowed[b], k) for b in range(len(requests))]
        return padded([(items, self.popularity[items]) for items in rows], k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        return gather(self.popularity, items, np.ones(len(self.popularity), bool))

    def _first(self, allowed: np.ndarray, k: int) -> np.ndarray:
        """The first k allowed items of the ranking, looking down no further than needed."""
        look = max(FIRST_LOOK, 2 * k)
        while True:
            head = self.ranking[:look]
            found = head[allowed[head]][:k]
            if len(found) == k or look >= len(self.ranking):
                return found
            look *= 8

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "popularity.npy", self.popularity)

    @classmethod
    def load(cls, path: Path) -> Popularity:
        return cls(np.load(path / "popularity.npy", mmap_mode="r"))


def fit_popularity(interactions: Interactions, config: PopularityConfig, content: object = None) -> Popularity:
    """Positive event weights, halved every half_life_days before the window's last event."""
    liked = interactions.positives
    end = liked.time.max(initial=0)
    weight = liked.weight * np.exp2((liked.time - end) / (config.half_life_days * DAY_US))
    return Popularity(np.bincount(liked.item, weight, minlength=interactions.n_items).astype(np.float32))
