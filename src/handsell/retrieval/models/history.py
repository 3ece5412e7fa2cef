"""The user's own recent favorites, for surfaces on which items may come back."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scipy import sparse

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.retrieval.config import HistoryConfig
from handsell.retrieval.history_weights import HistoryWeights, vote_matrix, votes
from handsell.retrieval.sparse_rows import best_of_rows, scores_at


@dataclass(frozen=True)
class History:
    """Needs no fitting: everything is in the request. Score = decayed sum of the user's event weights."""

    name: ClassVar[str] = "history"
    n_items: int
    weights: HistoryWeights

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return best_of_rows(self._given(requests), k, eligible)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Zero for an item that is not in the history."""
        return scores_at(self._given(requests), items, np.ones(self.n_items, bool))

    def weigh_history(self, **settings: Any) -> Self:
        """The same model with other `HistoryWeights`."""
        return replace(self, weights=HistoryWeights(**settings))

    def _given(self, requests: Requests) -> sparse.csr_matrix:
        """(B, I) the votes of the history."""
        return vote_matrix(*votes(requests, self.weights, self.n_items), self.n_items)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        about = {"n_items": self.n_items, "weights": asdict(self.weights)}
        (path / "history.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, path: Path) -> History:
        about = json.loads((path / "history.json").read_text())
        return cls(about["n_items"], HistoryWeights(**about["weights"]))


def fit_history(interactions: Interactions, config: HistoryConfig, content: object = None) -> History:
    return History(interactions.n_items, HistoryWeights.of(config))
