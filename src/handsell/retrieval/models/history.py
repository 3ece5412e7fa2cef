"""Items of the user's own history, for surfaces that allow repeats.

Sources: personal item frequency is a strong baseline of next-basket recommendation [hu2020]; items differ in how often
they are consumed again [benson2016].
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.data.interactions import Interactions
from handsell.data.late_scipy import sparse
from handsell.retrieval.config import FoldInSource, OptionalFoldIn, RetrieverPlugin
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.index.topk import fit_mask, pad_rows, select_top
from handsell.retrieval.sparse_rows import read_entries

PRIOR_LIKES = 10  # likes with the mean repeat share that smooth the repeat share of an item


class HistoryConfig(OptionalFoldIn):
    """Items of the user's own history, for surfaces that allow repeats."""

    HISTORY_KEYS: ClassVar[tuple[str, ...]] = (*FoldInSource.HISTORY_KEYS, "repeat_exponent", "popularity_exponent")
    k: int = Field(50, ge=1, description="candidates requested from this source")
    half_life_days: float = Field(7.0, gt=0, description="half-life of history events by age")
    repeat_exponent: float = Field(
        1.0, ge=0, le=2, description="exponent of the share of an item's likes that are repeats; 0: all items equal"
    )
    popularity_exponent: float = Field(
        0.2, ge=0, le=1, description="exponent of an item's popularity; 0: all items equal"
    )


@dataclass(frozen=True)
class HistoryRetriever:
    """Score = weight of the item in the history × repeat share ^ exponent × popularity ^ exponent."""

    name: ClassVar[str] = "history"
    weights: HistoryWeights
    repeats: np.ndarray  # (I,) float32, share of an item's likes by users who had liked it before
    popularity: np.ndarray  # (I,) float32 in (0, 1], likes divided by those of the most liked item
    repeat_exponent: float = 0.0
    popularity_exponent: float = 0.0

    @property
    def n_items(self) -> int:
        return len(self.repeats)

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        item, weight = weigh_history(requests, self.weights, self.n_items)
        allowed, rows = fit_mask(eligible, self.n_items), []
        for b in range(len(item)):
            used = np.flatnonzero(weight[b] > 0)
            used = used[allowed[b, item[b, used]]]
            own, score = item[b, used], weight[b, used] * self._value(item[b, used])
            rows.append(select_top(own[score > 0], score[score > 0], k))
        return pad_rows(rows, k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """Return scores (B, K); 0 for an item that is not in the history."""
        return read_entries(self._score_all(requests), items, np.ones(self.n_items, bool))

    def with_history_weights(self, **settings: Any) -> Self:
        """Return a copy with other exponents and `HistoryWeights`."""
        weights = {field.name: settings.pop(field.name) for field in fields(HistoryWeights) if field.name in settings}
        return replace(self, weights=replace(self.weights, **weights), **settings)

    def _score_all(self, requests: Requests) -> sparse.csr_matrix:
        """Return scores (B, I) of the items of each history."""
        scores = build_history_matrix(*weigh_history(requests, self.weights, self.n_items), self.n_items)
        scores.data *= self._value(scores.indices)
        return scores

    def _value(self, item: np.ndarray) -> np.ndarray:
        """Return the factors of items (N,) besides their weights."""
        return self.repeats[item] ** self.repeat_exponent * self.popularity[item] ** self.popularity_exponent

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "items.npy", np.stack([self.repeats, self.popularity]))
        about = {name: getattr(self, name) for name in ("repeat_exponent", "popularity_exponent")}
        (path / "history.json").write_text(json.dumps({**about, "weights": asdict(self.weights)}))

    @classmethod
    def load(cls, path: Path) -> HistoryRetriever:
        about = json.loads((path / "history.json").read_text())
        repeats, popularity = np.load(path / "items.npy")
        return cls(HistoryWeights(**about.pop("weights")), repeats, popularity, **about)


def fit_history(interactions: Interactions, config: HistoryConfig, content: object = None) -> HistoryRetriever:
    """Count each item's likes, and those of users who had liked it before."""
    liked = interactions.positives
    likes = np.bincount(liked.item, minlength=interactions.n_items)
    pairs = np.unique(liked.user.astype(np.int64) * interactions.n_items + liked.item)
    users = np.bincount(pairs % max(interactions.n_items, 1), minlength=interactions.n_items)
    repeated = likes - users
    usual = repeated.sum() / max(likes.sum(), 1)
    repeats = (repeated + PRIOR_LIKES * usual) / (likes + PRIOR_LIKES) if usual else np.ones(len(likes))
    popularity = (likes + 1) / (likes.max(initial=0) + 1)
    return HistoryRetriever(
        HistoryWeights.from_config(config), repeats.astype(np.float32), popularity.astype(np.float32),
        config.repeat_exponent, config.popularity_exponent,
    )  # fmt: skip


RETRIEVER = RetrieverPlugin(
    "history",
    HistoryConfig,
    HistoryRetriever,
    fit_history,
    purpose="users repeat items: music, groceries",
    needs="interactions",
    order=1,
    auto_selectable=True,
)
