"""The user's own recent favourites, for surfaces on which items may come back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import sparse

from handsell.core.batches import Requests
from handsell.core.config.retrieval import HistoryConfig
from handsell.data.interactions import Interactions
from handsell.retrieval.sparse_rows import best_of_rows, scores_at
from handsell.retrieval.votes import vote_matrix, votes


@dataclass(frozen=True)
class History:
    """Needs no fitting: everything is in the request. Score = decayed sum of the user's event weights."""

    name: ClassVar[str] = "history"
    n_items: int
    half_life_days: float

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return best_of_rows(self._given(requests), k, eligible)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Zero for an item that is not in the history."""
        return scores_at(self._given(requests), items, np.ones(self.n_items, bool))

    def _given(self, requests: Requests) -> sparse.csr_matrix:
        """(B, I) the votes of the history."""
        return vote_matrix(*votes(requests, self.half_life_days, self.n_items), self.n_items)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        about = {"n_items": self.n_items, "half_life_days": self.half_life_days}
        (path / "history.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: Path) -> History:
        return cls(**json.loads((path / "history.json").read_text()))


def fit_history(interactions: Interactions, config: HistoryConfig, content: object = None) -> History:
    return History(interactions.n_items, config.half_life_days)
