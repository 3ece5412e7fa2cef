"""A weighted sum of the scores of several retrievers, for services without a ranker.

Each part scores the union of the parts' results. Its scores are standardized per request, since the parts have
different scales. Mean and deviation are those of the part's best items outside the request's history, independent of
eligibility, so that a mask removes items without reordering the others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
        {"item_knn": 0.5, "als": 0.5}, min_length=1, description="weight of the standardized scores, by retriever"
    )
    depth: int = Field(200, ge=2, description="items requested from each part, over which its scores are standardized")

    @field_validator("parts")
    @classmethod
    def _check_parts(cls, parts: dict[str, float]) -> dict[str, float]:
        known = sorted(set(retrievers()) - {"blend", "history"})  # standardization uses items outside the history
        if unknown := [name for name in parts if name not in known]:
            raise ValueError(f"expected retrievers of {', '.join(known)}, got {', '.join(unknown)}")
        return parts


@dataclass(frozen=True)
class Blend:
    """S retrievers by registered name. A part without results for a request, or without the item, contributes 0."""

    name: ClassVar[str] = "blend"
    parts: Mapping[str, Retriever]
    weights: tuple[float, ...]  # (S,) in the order of the parts
    depth: int  # items requested from each part
    n_items: int  # I

    def with_snapshot(self, snapshot: Snapshot) -> Blend:
        """Return the blend with the parts that follow a version of the live catalog."""
        parts = {name: follow_snapshot(part, snapshot) for name, part in self.parts.items()}
        return replace(self, parts=parts, n_items=max(self.n_items, len(snapshot)))

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        items, standard = self.standardize(requests, k, eligible)
        return select_best(items, self.combine(standard), k)

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        return self.combine(
            self._standardize(requests, items, self._retrieve_best(requests, self._mask_history(requests)))
        )

    def standardize(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return candidates (B, K), ascending with -1 between them, and their standardized scores by part (B, K, S)."""
        allowed, fresh = fit_mask(eligible, self.n_items), self._mask_history(requests)
        best = self._retrieve_best(requests, fresh)
        if k <= self.depth and np.array_equal(allowed, fresh):
            found = [items for items, _ in best]
        else:
            found = [part.retrieve(requests, max(k, self.depth), allowed)[0] for part in self.parts.values()]
        items = _merge_items(found)
        return items, self._standardize(requests, items, best)

    def combine(self, standard: np.ndarray) -> np.ndarray:
        """Return weighted sums (B, K) of scores (B, K, S); NaN where no part has a score."""
        total = np.zeros(standard.shape[:2], np.float32)
        for s, weight in enumerate(self.weights):  # a fixed order: results do not depend on the batch
            total += np.float32(weight) * np.nan_to_num(standard[:, :, s], nan=0.0)
        return np.where(np.isnan(standard).all(axis=2), np.nan, total).astype(np.float32)

    def _retrieve_best(self, requests: Requests, fresh: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return [part.retrieve(requests, self.depth, fresh) for part in self.parts.values()]

    def _mask_history(self, requests: Requests) -> np.ndarray:
        """Return (B, I) bool: items outside the request's history."""
        item = requests.history.item
        row, place = np.nonzero((item >= 0) & (item < self.n_items) & (requests.history.time < requests.time[:, None]))
        out = np.ones((len(requests), self.n_items), bool)
        out[row, item[row, place]] = False
        return out

    def _standardize(self, requests: Requests, items: np.ndarray, best: list) -> np.ndarray:
        columns = [
            _standardize_scores(part.score(requests, items), scores)
            for part, (_, scores) in zip(self.parts.values(), best, strict=True)
        ]
        return np.stack(columns, axis=2)

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
    parts = {name: registry.fit(name, interactions, config, content) for name in blend.parts}
    return Blend(parts, tuple(blend.parts.values()), blend.depth, interactions.n_items)


def select_best(items: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return items and scores (B, k) of the k best of ascending candidates (B, K) with scores (B, K)."""
    rows = []
    for item, score in zip(items, scores, strict=True):
        may = (item != NONE) & ~np.isnan(score)
        rows.append(select_top(item[may], score[may], k))
    return pad_rows(rows, k)


def _standardize_scores(scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return scores (B, K) minus the mean of the part's best scores (B, depth), divided by their deviation.

    Where the best scores are all equal, their size is the divisor, so that items found stay above items not found. NaN
    for an item unknown to the part, and for a request without results.
    """
    out = np.full(scores.shape, np.nan, np.float32)
    for b, row in enumerate(best):
        known = row[~np.isnan(row)].astype(np.float64)
        if len(known):
            spread, size = known.std(), np.abs(known).max()
            scale = spread if spread > 1e-6 * size else size
            out[b] = (scores[b] - known.mean()) / (scale if scale > 0 else 1.0)
    return out


def _merge_items(found: list[np.ndarray]) -> np.ndarray:
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
