"""The most popular items at this time of day and week, independent of the user.

Score = decayed positive weight of the item × its lift in the context. The lift is the item's share of likes in the
context divided by its share of all likes, with empirical-Bayes smoothing [casella1985]: it is near 1 for contexts of
few events, and left out where shares differ no more than by chance. Lifts use the whole window, since habits change
more slowly than popularity. The surface is no part of the context, since likes on a surface mostly depend on what it
showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from handsell.core.batches import Requests
from handsell.core.offsets import mark_run_starts
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.retrieval.config import RetrieverPlugin, SourceConfig
from handsell.retrieval.index.topk import fit_mask, gather, pad_rows

SEARCH = {"half_life_days": (7.0, 1.0, 30.0, 365.0)}
FIRST_SCAN = 4096  # items at the top of the ranking that are checked for eligibility first
DAY_PARTS = 6  # of four hours, UTC
CONTEXTS = 2 * DAY_PARTS  # weekdays, then weekends
MIN_DEVIATIONS = 3.0  # standard deviations above chance that the differences of contexts must have


class PopularityConfig(SourceConfig):
    k: int = Field(200, ge=1, description="candidates requested from this source")
    weight: float = Field(0.5, ge=0, description="weight of this source in reciprocal rank fusion")
    half_life_days: float = Field(7.0, gt=0, description="half-life of a like by age")
    by_context: bool = Field(
        True, description="whether popularity depends on time of day and weekend, where the events show it"
    )


def find_context(time: np.ndarray) -> np.ndarray:
    """Return the context number of times (B,) µs: the part of the day, plus DAY_PARTS at weekends."""
    weekend = (time // DAY_US + 3) % 7 >= 5  # the epoch started on a Thursday; Monday is 0
    return time % DAY_US // (DAY_US // DAY_PARTS) + DAY_PARTS * weekend


@dataclass(frozen=True)
class Popularity:
    """The decayed popularity of I items; 0 for an item without likes."""

    name: ClassVar[str] = "popularity"
    popularity: np.ndarray  # (I,) float32, over all contexts
    lift: np.ndarray | None = None  # (CONTEXTS, I) float32; None where contexts do not differ

    @cached_property
    def ranking(self) -> np.ndarray:
        """Items with likes, most popular first, over all contexts."""
        return _rank_items(self.popularity)

    @cached_property
    def _by_context(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Cached scores (I,) and ranking by context."""
        return {}

    def _score_context(self, context: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores (I,) in a context and the items in the order of these."""
        if self.lift is None:
            return self.popularity, self.ranking
        if context not in self._by_context:
            scores = self.popularity * self.lift[context]
            self._by_context[context] = scores, _rank_items(scores)
        return self._by_context[context]

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        allowed = fit_mask(eligible, len(self.popularity))
        rows = []
        for may, context in zip(allowed, find_context(requests.time).tolist(), strict=True):
            scores, ranking = self._score_context(context)
            items = _take_allowed(ranking, may, k)
            rows.append((items, scores[items]))
        return pad_rows(rows, k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        known = np.ones(len(self.popularity), bool)
        if self.lift is None:
            return gather(self.popularity, items, known)
        rows = [
            gather(self._score_context(c)[0], items[b], known)
            for b, c in enumerate(find_context(requests.time).tolist())
        ]
        return np.stack(rows) if rows else np.zeros(items.shape, np.float32)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        np.save(path / "popularity.npy", self.popularity)
        if self.lift is not None:
            np.save(path / "lift.npy", self.lift)

    @classmethod
    def load(cls, path: Path) -> Popularity:
        lift = path / "lift.npy"
        known = np.load(path / "popularity.npy", mmap_mode="r")
        return cls(known, np.load(lift, mmap_mode="r") if lift.exists() else None)


def _rank_items(scores: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores, kind="stable").astype(np.int32)
    return order[: np.count_nonzero(scores > 0)]


def _take_allowed(ranking: np.ndarray, allowed: np.ndarray, k: int) -> np.ndarray:
    """Return the first k allowed items of the ranking; reads the ranking only as far as needed."""
    look = max(FIRST_SCAN, 2 * k)
    while True:
        head = ranking[:look]
        found = head[allowed[head]][:k]
        if len(found) == k or look >= len(ranking):
            return found
        look *= 8


def fit_popularity(interactions: Interactions, config: PopularityConfig, content: object = None) -> Popularity:
    """Sum positive event weights by item, decayed with age from the window's last event."""
    liked = interactions.positives
    mass = sum_decayed(liked, config.half_life_days)
    return Popularity(mass, estimate_lifts(count_by_context(liked)) if config.by_context else None)


def sum_decayed(liked: Interactions, half_life_days: float) -> np.ndarray:
    """Return the decayed sums (I,) float32 of weights as of the last event."""
    age_days = (liked.time - liked.time.max(initial=0)) / DAY_US
    weight = liked.weight * np.exp2(age_days / half_life_days)
    return np.bincount(liked.item, weight, minlength=liked.n_items).astype(np.float32)


def count_by_context(liked: Interactions) -> np.ndarray:
    """Count the users (CONTEXTS, I) who liked an item in a context; repeated likes count once."""
    cell = find_context(liked.time) * liked.n_items + liked.item
    order = np.lexsort((cell, liked.user))
    cell, new = cell[order], mark_run_starts(liked.user[order], cell[order])
    return np.bincount(cell[new], minlength=CONTEXTS * liked.n_items).reshape(CONTEXTS, liked.n_items)


def estimate_lifts(count: np.ndarray) -> np.ndarray | None:
    """Return smoothed lifts (C, I) float32 from counts (C, I); None where contexts differ no more than by chance.

    lift = (n_ci + m p_i) / (n_c + m) / p_i, where p are the overall shares and m is the weight of a Dirichlet prior
    around p, chosen such that its expected chi-square over the table equals the observed one.
    """
    by_item, by_context, total = count.sum(axis=0), count.sum(axis=1), int(count.sum())
    items, contexts = np.count_nonzero(by_item), np.count_nonzero(by_context)
    if items < 2 or contexts < 2:
        return None
    free = (items - 1) * (contexts - 1)
    share = by_item / total
    observed = count.astype(np.float64) ** 2 / np.maximum(by_context[:, None] * share, 1e-300)
    chi_square = observed.sum() - total
    if chi_square < free + MIN_DEVIATIONS * np.sqrt(2 * free):
        return None
    spread = chi_square / (items - 1)
    most = ((1 - by_context / total) * by_context).sum()
    prior = max((most - spread) / (spread - (contexts - 1)), 0.0) + 1e-9
    lift = (count + prior * share) / ((by_context[:, None] + prior) * np.where(share > 0, share, 1))
    return np.where(share > 0, lift, 1).astype(np.float32)


RETRIEVER = RetrieverPlugin(
    "popularity",
    PopularityConfig,
    Popularity,
    fit_popularity,
    purpose="nothing is known about the user; also the baseline that others must beat",
    needs="interactions",
    order=0,
    personal=False,
    auto_selectable=True,
    search=SEARCH,
)
