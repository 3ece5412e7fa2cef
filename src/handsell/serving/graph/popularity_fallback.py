"""What is popular and what is rising, by catalog number: the public lists, and the answer when retrieval is gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Candidates, Requests, Slates
from handsell.eligibility.mask import Eligibility
from handsell.reranking.reasons import CODE

LOOK = 4_096  # entries of a chart that are tried for a slate


@dataclass(frozen=True)
class Charts:
    """`popularity` (I,) float32 as the popularity source has it, or None: then the snapshot's counts."""

    snapshot: Snapshot
    eligibility: Eligibility
    popularity: np.ndarray | None = None

    @cached_property
    def popular(self) -> tuple[np.ndarray, np.ndarray]:
        """Items best first, and their scores in 0..1."""
        values = self.popularity
        return _chart(self._column("item_positives_28d") if values is None else np.asarray(values))

    @cached_property
    def trending(self) -> tuple[np.ndarray, np.ndarray]:
        """Likewise by the snapshot's trend, then by this week's count; what nobody touched does not trend."""
        week = self._column("item_positives_7d")
        return _chart(np.where(week > 0, np.maximum(self._column("item_trend"), 0), 0), week)

    def first(self, chart: tuple[np.ndarray, np.ndarray], requests: Requests, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, n) items and scores of a chart that each request may be shown, -1 padded."""
        items, scores = chart
        rows = len(requests)
        out, out_score = np.full((rows, n), NONE, np.int32), np.zeros((rows, n), np.float32)
        look = LOOK
        while True:
            head = np.broadcast_to(items[:look], (rows, min(look, len(items))))
            allowed = self.eligibility.allows(requests, head)
            if look >= len(items) or (allowed.sum(axis=1) >= n).all():
                break
            look *= 8
        for b in range(rows):
            at = np.flatnonzero(allowed[b])[:n]
            out[b, : len(at)], out_score[b, : len(at)] = items[at], scores[at]
        return out, out_score

    def slates(self, requests: Requests, n: int, degraded: tuple[str, ...]) -> Slates:
        """Popular slates for requests whose candidates did not come."""
        item, score = self.first(self.popular, requests, n)
        filled = item != NONE
        return Slates(
            item=item,
            score=score,
            source=filled.astype(np.uint32),
            reason=np.where(filled, CODE["popular"], 0).astype(np.int8),
            reason_item=np.full(item.shape, NONE, np.int32),
            propensity=np.ones(item.shape, np.float32),
            sources=("popularity",),
            degraded=degraded,
        )

    def candidates(self, items: np.ndarray) -> Candidates:
        """A caller's own items (B, K) in order of popularity, for when no source answers."""
        order, score = self.popular
        by_item = np.zeros(len(self.snapshot), np.float32)
        by_item[order] = score
        value = by_item[items]
        none = np.full((*items.shape, 0), np.nan, np.float32)
        return Candidates(items, value, none, none, value, (), ("candidates",))

    def _column(self, name: str) -> np.ndarray:
        names = self.snapshot.value_names
        if name not in names:
            return np.zeros(len(self.snapshot), np.float32)
        return np.nan_to_num(self.snapshot.values[:, names.index(name)])


def _chart(values: np.ndarray, next_by: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Every item, best first, ties by `next_by`, then by number; scores relative to the best."""
    ties = np.zeros(len(values)) if next_by is None else -next_by
    order = np.lexsort((ties, -values)).astype(np.int32)
    best = max(float(values.max(initial=0)), 1e-9)
    return order, np.clip(values[order] / best, 0, 1).astype(np.float32)


def named(slates: Slates, *causes: str) -> Slates:
    """The slates with more causes in `degraded`."""
    return replace(slates, degraded=(*slates.degraded, *causes))
