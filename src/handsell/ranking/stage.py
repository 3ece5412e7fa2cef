"""The ranking stage: candidates in, the k best out, with calibrated scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self, runtime_checkable

import numpy as np

from handsell.catalog.new_items import is_new
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.errors import FeatureError
from handsell.core.kernels import compiled
from handsell.core.protocols import Ranker
from handsell.features.matrix import ItemValues, SnapshotValues, build_matrix, group_features, list_features
from handsell.ranking.examples import list_history
from handsell.ranking.lists import Lists


@runtime_checkable
class RawRanker(Ranker, Protocol):
    """A ranker whose calibrated scores may tie: it is ordered by its raw scores."""

    def raw(self, x: np.ndarray, trees: int = 0, use: np.ndarray | None = None) -> np.ndarray:
        """(…, F) → (…) raw scores, NaN where `use` (…) is false; a model of trees uses its first `trees`, 0 for all."""
        ...

    def calibrate(self, raw: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class ListRanker(Ranker, Protocol):
    """A ranker whose score of a candidate depends on the others of its request, and on the user's latest items."""

    @property
    def history_items(self) -> int:
        """The number of latest items that it reads."""
        ...

    def raw(
        self, x: np.ndarray, trees: int = 0, use: np.ndarray | None = None, lists: Lists | None = None
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class LocalRanking:
    """Scores all candidates and passes on the k best of each request, and the best new items for exploration.

    The caller's own items (POST /v1/rank) are ranked the same way. Padding and candidates without a finite score are
    last, with score 0; equal scores keep the order of the candidates.
    """

    ranker: Ranker
    snapshot: Snapshot
    items: ItemValues
    config: Config

    def with_snapshot(self, snapshot: Snapshot) -> Self:
        """Return the stage on the next version of the live catalog."""
        return replace(self, snapshot=snapshot, items=SnapshotValues(snapshot))

    def with_config(self, config: Config) -> Self:
        """Return the stage with other settings of surfaces."""
        return replace(self, config=config)

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        """Return the k best by raw score, best first; raises ArithmeticError for a request without any finite score."""
        raw, as_found = self._raw(requests, candidates, k), ~self.ranks(requests)[:, None]
        if as_found.any():
            raw = np.where(as_found, candidates.fused, raw)
        real = candidates.item != NONE
        finite = np.isfinite(raw) & real
        if (real.any(axis=1) & ~finite.any(axis=1)).any():
            raise ArithmeticError("the ranker gave no finite score for any candidate of a request")
        order = best_first(raw, finite, real, k)
        order, carried = self._carry_new_items(requests, candidates, raw, finite, order)
        top = candidates.reorder(order)
        kept = np.where(finite, raw, np.nan)[np.arange(len(order))[:, None], order]
        score = self._by_raw.calibrate(kept) if self._by_raw else kept
        score = np.where(as_found, kept, score)
        top = replace(top, score=np.where(np.isnan(score), 0, score).astype(np.float32))
        return top if carried is None else blank_columns(top, carried)

    def _carry_new_items(
        self, requests: Requests, candidates: Candidates, raw: np.ndarray, finite: np.ndarray, order: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Append the columns of the best new items beyond `order` (B, k), which only exploration may show.

        Returns also which of the appended (B, c) hold one; None if exploration does not use them.
        """
        exploration = self.config.reranking.exploration
        if not exploration.carried or order.shape[1] == candidates.item.shape[1]:
            return order, None
        usable = finite & is_new(self.snapshot, candidates.item, requests.time, exploration.new_items.days)
        np.put_along_axis(usable, order, False, axis=1)
        extra = best_first(raw, usable, finite, min(exploration.carried, int(usable.sum(axis=1).max(initial=0))))
        return np.concatenate([order, extra], axis=1), np.take_along_axis(usable, extra, 1)

    def ranks(self, requests: Requests) -> np.ndarray:
        """Return (B,) bool: whether the ranker orders a request, instead of the fused order of its sources.

        It does on surfaces with `ranked`, for users with events, and for others where training found that it helps
        (docs/decisions/052).
        """
        ranked = self._ranked[requests.surface]
        if getattr(self.ranker, "ranks_without_events", False):
            return ranked
        return ranked & (requests.history.item != NONE).any(axis=1)

    @cached_property
    def _ranked(self) -> np.ndarray:
        """By surface code (S,) bool, whether the ranker orders its requests."""
        return np.array([surface.ranked for surface in self.config.surfaces.values()])

    def _raw(self, requests: Requests, candidates: Candidates, k: int) -> np.ndarray:
        """Return (B, K) values that decide the order; NaN for padding and for candidates that the first look drops."""
        x, lists = self.read_rows(requests, candidates)
        look = self.look_first(x, lists.real, k)
        if (exploration := self.config.reranking.exploration).carried:  # a low first look must not end a fair start
            look |= is_new(self.snapshot, candidates.item, requests.time, exploration.new_items.days)
        return self.score_rows(x, lists, look)

    def read_rows(self, requests: Requests, candidates: Candidates) -> tuple[np.ndarray, Lists]:
        """Return the matrix (B, K, F) of the candidates, and what a `ListRanker` reads besides."""
        real, items = candidates.item != NONE, getattr(self.ranker, "history_items", 0)
        if not items:
            x = self.matrix(requests, candidates)
            return x, Lists.without_history(real, x.shape[2])
        past, width = list_history(requests, items, candidates.sources), candidates.item.shape[1]
        x = self.matrix(requests, candidates.append(past))
        weight = np.where(past.item == NONE, np.float32(np.nan), requests.history.weight[:, -items:])
        return x[:, :width], Lists(real, np.ones(real.shape, np.float32), x[:, width:], weight)

    def score_rows(self, x: np.ndarray, lists: Lists, look: np.ndarray) -> np.ndarray:
        """Return the scores (B, K) of the rows of x (B, K, F) where `look` (B, K), NaN elsewhere."""
        if self._by_list is not None:
            return self._by_list.raw(x, use=look, lists=lists)
        if self._by_raw is not None:
            return self._by_raw.raw(x, use=look)
        return np.where(look, self.ranker.score(x), np.nan)

    def look_first(self, x: np.ndarray, real: np.ndarray, k: int) -> np.ndarray:
        """Return (B, K) bool: candidates that the whole ranker scores: all, or the best by its first trees.

        At least k candidates of a request are kept.
        """
        trees, keeps = self.config.ranking.first_look_trees, max(self.config.ranking.first_look_keeps, k)
        if not trees or real.shape[1] <= keeps or self._by_raw is None:
            return real
        rough = self._by_raw.raw(x, trees, real)
        kept = np.zeros(real.shape, bool)
        kept[np.arange(len(kept))[:, None], best_first(rough, np.isfinite(rough), real, keeps)] = True
        return kept & real

    @cached_property
    def _by_list(self) -> ListRanker | None:
        return self.ranker if isinstance(self.ranker, ListRanker) else None

    @cached_property
    def _by_raw(self) -> RawRanker | None:
        return self.ranker if isinstance(self.ranker, RawRanker) else None

    def matrix(self, requests: Requests, candidates: Candidates) -> np.ndarray:
        """Return the matrix in the ranker's columns and order; raises FeatureError naming missing features."""
        groups, names = self._name_columns(candidates.sources)
        x = build_matrix(requests, candidates, self.items, self.snapshot, self.config, groups=groups)
        if names == self.ranker.features:
            return x
        missing = [name for name in self.ranker.features if name not in names]
        if missing:
            raise FeatureError(
                f"the ranker expects {len(self.ranker.features)} features, the matrix has {len(names)} "
                f"(missing: {', '.join(missing)}): serve the bundle's own sources and columns, or train again"
            )
        return x[:, :, [names.index(name) for name in self.ranker.features]]

    def _name_columns(self, sources: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """Return the columns of the matrix by group, and all of them."""
        if sources not in self._columns:
            self._columns[sources] = group_features(self.config, sources), list_features(self.config, sources)
        return self._columns[sources]

    @cached_property
    def _columns(self) -> dict[tuple[str, ...], tuple[dict[str, tuple[str, ...]], tuple[str, ...]]]:
        return {}


def blank_columns(candidates: Candidates, real: np.ndarray) -> Candidates:
    """Mark the last columns as those that only exploration may show, padding where `real` (B, c) is false."""
    gone = np.zeros(candidates.item.shape, bool)
    if real.shape[1]:
        gone[:, -real.shape[1] :] = ~real
    return replace(
        candidates,
        item=np.where(gone, NONE, candidates.item),
        fused=np.where(gone, 0, candidates.fused),
        score=np.where(gone, 0, candidates.score),
        source_score=np.where(gone[:, :, None], np.nan, candidates.source_score),
        source_rank=np.where(gone[:, :, None], np.nan, candidates.source_rank),
        carried=real.shape[1],
    )


@dataclass(frozen=True)
class FusedRanking:
    """Ranking without a model (`ranking.enabled = false`): the fused order of the sources."""

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        """Return the first k by fused score, with the fused score as score."""
        real = candidates.item != NONE
        finite = np.isfinite(candidates.fused) & real
        top = candidates.reorder(best_first(candidates.fused, finite, real, k))
        return replace(top, score=np.nan_to_num(top.fused, nan=0.0, posinf=0.0, neginf=0.0))


def best_first(raw: np.ndarray, finite: np.ndarray, real: np.ndarray, k: int) -> np.ndarray:
    """Return (B, min(k, K)) columns: finite scores descending, then others, then padding; ties keep their order."""
    if compiled is not None and raw.dtype == np.float32:
        order = np.empty((len(raw), min(max(k, 0), raw.shape[1])), np.int64)
        compiled.order_best(np.ascontiguousarray(raw), finite, real, order, len(raw))
        return order
    key = np.where(finite, -raw.astype(np.float64), np.where(real, np.inf, np.nan))  # NaN sorts last
    return np.argsort(key, axis=1, kind="stable")[:, :k]
