"""Popular and trending items: the public lists, and the fallback when the candidate stage fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests, Slates
from handsell.eligibility.mask import Eligibility
from handsell.reranking.reasons import CODE

Order = tuple[np.ndarray, np.ndarray]  # items, best first, and their scores
FIRST_TRIED = 4_096  # items of a list that are checked for eligibility at first


@dataclass(frozen=True)
class PopularItems:
    """`popularity` (I,) float32 is from the popularity retriever; if None, the snapshot's counts are used."""

    snapshot: Snapshot
    eligibility: Eligibility
    popularity: np.ndarray | None = None
    before: PopularItems | None = None  # of an earlier snapshot, where `snapshot` has later changes
    order: tuple[Order, Order] | None = None  # popular and trending items with recent likes, instead of the bundle's

    def with_snapshot(self, snapshot: Snapshot) -> PopularItems:
        """Return the lists on a version of the live catalog; new items are last."""
        eligibility = self.eligibility.with_snapshot(snapshot)
        before = self.before or self if self.order is not None or snapshot is not snapshot.base else None
        return PopularItems(snapshot, eligibility, self.popularity, before)

    def with_config(self, config: Config, base: Config) -> PopularItems:
        """Return the lists with the surfaces of a config, where they differ from those of `base`."""
        if config.surfaces == base.surfaces:
            return self
        return replace(self, eligibility=self.eligibility.with_config(config))

    def with_likes(self, add: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> PopularItems:
        """Return the lists after `add`, which returns popularity and trend (I,) with recent likes."""
        popular, trend = add(*(pad(values, len(self.snapshot)) for values in (self._popularity, self._trend)))
        week = self._column("item_positives_7d")
        return PopularItems(
            self.snapshot, self.eligibility, self.popularity, None, (_order(popular), _order(trend, week))
        )

    def _append_new(self, order: Order) -> Order:
        new = np.arange(len(order[0]), len(self.snapshot), dtype=np.int32)
        if not len(new):
            return order
        return np.concatenate([order[0], new]), np.concatenate([order[1], np.zeros(len(new), np.float32)])

    @cached_property
    def popular(self) -> Order:
        """All items, most popular first, and their scores in 0..1."""
        if self.before is not None:
            return self._append_new(self.before.popular)
        return _order(self._popularity) if self.order is None else self.order[0]

    @cached_property
    def trending(self) -> Order:
        """Likewise by the snapshot's trend, then by this week's count; items without a count this week score 0."""
        if self.before is not None:
            return self._append_new(self.before.trending)
        if self.order is not None:
            return self.order[1]
        return _order(self._trend, self._column("item_positives_7d"))

    @cached_property
    def latest(self) -> Order:
        """Items by their time of publication, newest first; those without one last. Scores are in 0..1."""
        published = self.snapshot.published
        order = np.argsort(-np.maximum(published, 0), kind="stable").astype(np.int32)
        return order, np.linspace(1, 0, len(order), dtype=np.float32)

    @property
    def _popularity(self) -> np.ndarray:
        values = self.popularity
        return self._column("item_positives_28d") if values is None else np.asarray(values)

    @property
    def _trend(self) -> np.ndarray:
        return np.where(self._column("item_positives_7d") > 0, np.maximum(self._column("item_trend"), 0), 0)

    def first_allowed(self, order: Order, requests: Requests, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(B, n) first items of an order that each request may be shown, -1 padded, and their scores."""
        items, scores = order
        rows = len(requests)
        out, out_score = np.full((rows, n), NONE, np.int32), np.zeros((rows, n), np.float32)
        tried = FIRST_TRIED
        while True:
            head = np.broadcast_to(items[:tried], (rows, min(tried, len(items))))
            allowed = self.eligibility.allows(requests, head)
            if tried >= len(items) or (allowed.sum(axis=1) >= n).all():
                break
            tried *= 8
        for b in range(rows):
            at = np.flatnonzero(allowed[b])[:n]
            out[b, : len(at)], out_score[b, : len(at)] = items[at], scores[at]
        return out, out_score

    def build_slates(self, requests: Requests, n: int) -> Slates:
        """Build slates of popular items, the fallback when the candidate stage fails."""
        item, score = self.first_allowed(self.popular, requests, n)
        filled = item != NONE
        return Slates(
            item=item,
            score=score,
            source=filled.astype(np.uint32),
            reason=np.where(filled, CODE["popular"], 0).astype(np.int8),
            reason_item=np.full(item.shape, NONE, np.int32),
            propensity=np.ones(item.shape, np.float32),
            sources=("popularity",),
        )

    def build_candidates(self, items: np.ndarray) -> Candidates:
        """Build candidates from a caller's own items (B, K), scored by popularity: the same fallback for ranking."""
        order, score = self.popular
        by_item = np.zeros(len(self.snapshot), np.float32)
        by_item[order] = score
        value = by_item[items]
        none = np.full((*items.shape, 0), np.nan, np.float32)
        return Candidates(items, value, none, none, value, ())

    def _column(self, name: str) -> np.ndarray:
        names = self.snapshot.value_names
        if name not in names:
            return np.zeros(len(self.snapshot), np.float32)
        return np.nan_to_num(self.snapshot.values[:, names.index(name)])


class PopularLists:
    """The popular items of a bundle as they are now: they follow the catalog and recent likes; threads may share it."""

    def __init__(self, items: PopularItems):
        self.items = items
        self._lock = threading.Lock()

    def follow(self, snapshot: Snapshot) -> None:
        """Show the items of another version of the live catalog."""
        with self._lock:
            self.items = self.items.with_snapshot(snapshot)

    def add_likes(self, add: Callable[[Snapshot, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
        """Count recent likes: `add` gets the snapshot, popularity and trend (I,), and returns both with the likes.

        Takes time that grows with the catalog; a change of the catalog may come meanwhile.
        """
        before = self.items
        counted = before.with_likes(lambda popularity, trend: add(before.snapshot, popularity, trend))
        with self._lock:
            snapshot = self.items.snapshot
            self.items = counted if snapshot is before.snapshot else counted.with_snapshot(snapshot)


def _order(values: np.ndarray, tie_values: np.ndarray | None = None) -> Order:
    """All items, best first, ties by `tie_values`, then by number; scores relative to the best."""
    ties = np.zeros(len(values)) if tie_values is None else -tie_values
    order = np.lexsort((ties, -values)).astype(np.int32)
    best = max(float(values.max(initial=0)), 1e-9)
    return order, np.clip(values[order] / best, 0, 1).astype(np.float32)


def pad(values: np.ndarray, size: int) -> np.ndarray:
    """Return values (I,) with zeros for items that came later."""
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)])
