"""The user's own recent favourites, for surfaces on which items may come back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from handsell.core.batches import Requests
from handsell.core.config.retrieval import HistoryConfig
from handsell.data.interactions import Interactions
from handsell.retrieval.topk import gather, padded, top_items, within
from handsell.retrieval.votes import vote_matrix, votes


@dataclass(frozen=True)
class History:
    """Needs no fitting: everything is in the request. Score = decayed sum of the user's event weights."""

    name: ClassVar[str] = "history"
    n_items: int
    half_life_days: float

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        allowed = within(eligible, self.n_items)
        item, weight = votes(requests, self.half_life_days, self.n_items)
        liked = weight > 0
        rows = []
        for b in range(len(requests)):
            mine = item[b][liked[b]]  # ascending: votes are sorted by item
            may = allowed[b][mine]
            rows.append(top_items(mine[may], weight[b][liked[b]][may], k))
        return padded(rows, k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Zero for an item that is not in the history."""
        table = vote_matrix(*votes(requests, self.half_life_days, self.n_items), self.n_items).toarray()
        return gather(table, items, np.ones(self.n_items, bool))

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        about = {"n_items": self.n_items, "half_life_days": self.half_life_days}
        (path / "history.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: Path) -> History:
        return cls(**json.loads((path / "history.json").read_text()))


def fit_history(interactions: Interactions, config: HistoryConfig, content: object = None) -> History:
    return History(interactions.n_items, config.half_life_days)
