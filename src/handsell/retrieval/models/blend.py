"""A weighted sum of the scores of several retrievers, for services without a ranker.

Each part scores the union of the parts' results. Its scores are standardized per request, since the parts have
different scales. Mean and deviation are those of the part's best items outside the request's history, independent of
eligibility, so that a mask removes items without reordering the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Requests
from handsell.core.protocols import Retriever
from handsell.data.interactions import Interactions
from handsell.retrieval import registry
from handsell.retrieval.config import OptionalSource, RetrievalConfig, RetrieverPlugin, retrievers
from handsell.retrieval.content_vectors import Content
from handsell.retrieval.following import follow_snapshot
from handsell.retrieval.index.topk import fit_mask, pad_rows, select_top

LAST = np.iinfo(np.int32).max  # sorts padding behind all items


class BlendConfig(OptionalSource):
    """Several retrievers as one source, for services without a ranker; each is fitted with its own section."""

    parts: dict[str, float] = Field(
        {"item_knn": 0.5, "als": 0.5},
        min_length=1,
        description="weight of the standardized scores, by retriever; 0 leaves it out",
    )
    depth: int = Field(200, ge=2, description="items requested from each part, over which its scores are standardized")

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, parts: dict[str, float]) -> dict[str, float]:
        known = sorted(set(retrievers()) - {"blend", "history"})  # standardization uses items outside the history
        if unknown := [name for name in parts if name not in known]:
            raise ValueError(f"expected retrievers of {', '.join(known)}, got {', '.join(unknown)}")
        if min(parts.values()) < 0 or not any(parts.values()):
            raise ValueError(f"expected weights of at least 0, one of them above 0, got {list(parts.values())}")
        return parts


@dataclass(frozen=True)
class PartScores:
    """Candidates of B requests with the standardized scores of S parts."""

    items: np.ndarray  # (B, K) int32, ascending, with -1 between them
    standard: np.ndarray  # (B, K, S) float32; NaN where a part does not know the item, or has no results
    lowest: np.ndarray  # (B, S) float32, the standardized score of a part's last result; 0 without results
    found: tuple[np.ndarray, ...]  # S lists (B, k) of the items that each part returned

    def combine(self, weights: Sequence[float]) -> np.ndarray:
        """Return weighted sums (B, K); NaN for items that no part with a weight returned, or knows.

        An item that a part does not know counts as its last result: it neither passes nor loses to what the part found.
        """
        used = [s for s, weight in enumerate(weights) if weight > 0]
        total, known = np.zeros(self.items.shape, np.float32), np.zeros(self.items.shape, bool)
        for s in used:  # a fixed order: results do not depend on the batch
            column = self.standard[:, :, s]
            nothing = np.isnan(column)
            total += np.float32(weights[s]) * np.where(nothing, self.lowest[:, s, None], column)
            known |= ~nothing
        if len(used) < len(weights):
            known &= _mark_found(self.items, [self.found[s] for s in used])
        return np.where(known, total, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Blend:
    """S retrievers by registered name.

    A part without results for a request contributes 0; a part of weight 0 is not asked. With all the weight on one
    part, the answers are exactly that part's own.
    """

    name: ClassVar[str] = "blend"
    parts: Mapping[str, Retriever]
    weights: tuple[float, ...]  # (S,) in the order of the parts, not negative
    depth: int  # items requested from each part
    n_items: int  # I

    def with_snapshot(self, snapshot: Snapshot) -> Blend:
        """Return the blend with the parts that follow a version of the live catalog."""
        parts = {name: follow_snapshot(part, snapshot) for name, part in self.parts.items()}
        return replace(self, parts=parts, n_items=max(self.n_items, len(snapshot)))

    @cached_property
    def weighted(self) -> Blend:
        """The blend of the parts that have a weight."""
        used = {name: weight for name, weight in zip(self.parts, self.weights, strict=True) if weight > 0}
        return replace(self, parts={name: self.parts[name] for name in used}, weights=tuple(used.values()))

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        used = self.weighted
        if len(used.parts) == 1:
            return next(iter(used.parts.values())).retrieve(requests, k, eligible)
        scores = used.standardize(requests, k, eligible)
        return select_best(scores.items, scores.combine(used.weights), k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        used = self.weighted
        if len(used.parts) == 1:
            return next(iter(used.parts.values())).score(requests, items)
        best = used._retrieve_best(requests, used._mask_history(requests))
        return used._standardize(requests, items, best, ()).combine(used.weights)

    def standardize(self, requests: Requests, k: int, eligible: np.ndarray) -> PartScores:
        """Return the candidates of all parts and their standardized scores by part."""
        allowed, fresh = fit_mask(eligible, self.n_items), self._mask_history(requests)
        best = self._retrieve_best(requests, fresh)
        if k <= self.depth and np.array_equal(allowed, fresh):
            found = tuple(items for items, _ in best)
        else:
            found = tuple(part.retrieve(requests, max(k, self.depth), allowed)[0] for part in self.parts.values())
        return self._standardize(requests, _merge_items(found), best, found)

    def _retrieve_best(self, requests: Requests, fresh: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [part.retrieve(requests, self.depth, fresh) for part in self.parts.values()]

    def _mask_history(self, requests: Requests) -> np.ndarray:
        """Return (B, I) bool: items outside the request's history."""
        item = requests.history.item
        row, place = np.nonzero((item >= 0) & (item < self.n_items) & (requests.history.time < requests.time[:, None]))
        out = np.ones((len(requests), self.n_items), bool)
        out[row, item[row, place]] = False
        return out

    def _standardize(
        self, requests: Requests, items: np.ndarray, best: Sequence[tuple], found: tuple[np.ndarray, ...]
    ) -> PartScores:
        parts = [
            _standardize_scores(part.score(requests, items), scores)
            for part, (_, scores) in zip(self.parts.values(), best, strict=True)
        ]
        standard, lowest = np.stack([one for one, _ in parts], axis=2), np.stack([low for _, low in parts], axis=1)
        return PartScores(items, standard, lowest, found)

    def save(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        for name, part in self.parts.items():
            part.save(path / "parts" / name)
        about = {"weights": dict(zip(self.parts, self.weights, strict=True)), "depth": self.depth}
        (path / "blend.json").write_text(json.dumps({**about, "n_items": self.n_items}))

    @classmethod
    def load(cls, path: Path) -> Blend:
        about = json.loads((path / "blend.json").read_text())
        parts = {name: registry.load(name, path / "parts" / name) for name in about["weights"]}
        return cls(parts, tuple(about["weights"].values()), about["depth"], about["n_items"])


def fit_blend(interactions: Interactions, config: RetrievalConfig, content: Content | None = None) -> Blend:
    """Fit each part of `retrieval.blend.parts` with its own section."""
    blend = config["blend"]
    weights = {name: weight for name, weight in blend.parts.items() if weight > 0}
    parts = {name: registry.fit(name, interactions, config, content) for name in weights}
    return Blend(parts, tuple(weights.values()), blend.depth, interactions.n_items)


def select_best(items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items and scores (B, k) of the k best of ascending candidates (B, K) with scores (B, K)."""
    rows = []
    for item, score in zip(items, scores, strict=True):
        may = (item != NONE) & ~np.isnan(score)
        rows.append(select_top(item[may], score[may], k))
    return pad_rows(rows, k)


def _standardize_scores(scores: np.ndarray, best: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (B, K) minus the mean of the part's best scores (B, depth), divided by their deviation.

    Where the best scores are all equal, their size is the divisor, so that items found stay above items not found. NaN
    for an item unknown to the part, and for a request without results. Second, the lowest of the best (B,), likewise.
    """
    out, lowest = np.full(scores.shape, np.nan, np.float32), np.zeros(len(scores), np.float32)
    for b, row in enumerate(best):
        known = row[~np.isnan(row)].astype(np.float64)
        if len(known):
            spread, size = known.std(), np.abs(known).max()
            scale = spread if spread > 1e-6 * size else size or 1.0
            out[b] = (scores[b] - known.mean()) / scale
            lowest[b] = (known.min() - known.mean()) / scale
    return out, lowest


def _mark_found(items: np.ndarray, found: Sequence[np.ndarray]) -> np.ndarray:
    """(B, K) bool: items (B, K) that are in one of the lists (B, k) of the same row."""
    rows = zip(items, np.concatenate(found, axis=1), strict=True)
    return np.array([np.isin(row, some) for row, some in rows], bool).reshape(items.shape)


def _merge_items(found: Sequence[np.ndarray]) -> np.ndarray:
    """(B, K) the distinct items of lists (B, k) ascending; -1 in the place of repeats and of padding."""
    items = np.concatenate(found, axis=1)
    items = np.sort(np.where(items == NONE, LAST, items), axis=1)
    again = np.zeros(items.shape, bool)
    again[:, 1:] = items[:, 1:] == items[:, :-1]
    return np.where(again | (items == LAST), NONE, items).astype(np.int32)


RETRIEVER = RetrieverPlugin(
    "blend",
    BlendConfig,
    Blend,
    fit_blend,
    purpose="there is no ranker, and several of the above complement each other",
    needs="the parts",
    order=15,
    whole_config=True,
)
