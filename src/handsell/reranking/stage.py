"""The re-ranking stage: eligible, varied, spaced and explained slates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests, Slates
from handsell.core.funnel import pack_source_bits
from handsell.eligibility.mask import Eligibility
from handsell.features.item import ItemValues, SnapshotValues
from handsell.reranking.calibrated import TasteCalibration, own_mix
from handsell.reranking.config import RerankingConfig
from handsell.reranking.dpp import Determinantal, kernel
from handsell.reranking.exploration import Exploration, seeds
from handsell.reranking.mmr import MarginalRelevance, relevance
from handsell.reranking.reasons import CODE, Evidence, explain, liked_weight
from handsell.reranking.rules.live_rules import LiveRules
from handsell.reranking.selection import Constraint, Pool, Preference, select
from handsell.reranking.similarity import cosines, same_creator, tag_vectors
from handsell.reranking.spacing import CREATOR_GAP, CategoryWindow, ItemGap
from handsell.reranking.utility import own_diversity, surprise, worth


@dataclass(frozen=True, slots=True)
class Likeness:
    """Of B requests' K candidates to each other and to T history items: M = K + T."""

    tags: np.ndarray  # (B, M, U) float32 unit tag vectors, over the tags that occur in the row
    related: np.ndarray  # (B, K, M) bool, the same creator
    cosine: np.ndarray  # (B, K, M) float32 in 0..1, of tags
    alike: np.ndarray  # (B, K, M) float32, the same, but 1 for the same creator


@dataclass(frozen=True)
class LocalReranking:
    """Eligibility is checked once more and fails closed: what is not allowed is never shown.

    `items` gives items' popularity, by default the snapshot's; evaluation gives it as of each request's day.
    """

    snapshot: Snapshot
    eligibility: Eligibility
    config: Config
    items: ItemValues | None = None
    rules: LiveRules | None = None  # business rules; none offline, where models are measured

    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates:
        """Slates of exactly n positions, padded with -1 where fewer than n candidates are allowed."""
        if not candidates.item.shape[1]:
            return _nothing(candidates, n)
        allowed = self.eligibility.allows(requests, candidates.item)
        ruled = None if self.rules is None else self.rules.apply(requests, candidates, allowed, n)
        if ruled is not None:
            candidates, allowed = ruled.result.candidates, ruled.result.allowed
        k = candidates.item.shape[1]
        likeness = self._likeness(requests, candidates)
        constraints = self._constraints(requests, likeness, n)
        diversity = own_diversity(self.dials, requests.profile, len(self.snapshot.tags))
        pool = self._pool(requests, candidates, allowed, likeness, diversity)
        if ruled is not None:
            constraints += ruled.result.constraints
            pool = replace(pool, boost=ruled.result.boost, pin=ruled.result.pin)
        preferences = self._preferences(requests, likeness, diversity, n)
        chosen = select(pool, n, preferences, constraints, self._exploration(requests))
        filled, order = chosen.column != NONE, np.maximum(chosen.column, 0)
        row = np.arange(len(order))[:, None]
        item = np.where(filled, candidates.item[row, order], NONE)
        source = np.where(filled, pack_source_bits(candidates.source_rank[row, order]), 0).astype(np.uint32)
        evidence = Evidence(item, source, candidates.sources, likeness.alike[row, order, k:])
        reason, reason_item = explain(requests, evidence, self.snapshot, self._liked)
        slates = Slates(
            item=item,
            score=np.where(filled, candidates.score[row, order], 0).astype(np.float32),
            source=source,
            reason=np.where(chosen.explored, CODE["explore"], reason).astype(np.int8),
            reason_item=np.where(chosen.explored, NONE, reason_item).astype(np.int32),
            propensity=chosen.propensity,
            sources=candidates.sources,
            relaxed=chosen.broken,
            constraints=tuple(constraint.name for constraint in constraints),
            degraded=candidates.degraded,
        )
        return slates if ruled is None else ruled.finish(requests, slates)

    @cached_property
    def dials(self) -> RerankingConfig:
        """The settings of `[reranking]` with their strength applied."""
        return self.config.reranking.scaled()

    @cached_property
    def unseen(self) -> LocalReranking:
        """The same stage for slates that nobody is shown: rules do not count their impressions."""
        return self if self.rules is None else replace(self, rules=self.rules.without_counting())

    @cached_property
    def _liked(self) -> float:
        return liked_weight(self.config.events)

    @cached_property
    def _category_window(self) -> tuple[np.ndarray, np.ndarray]:
        """By surface code (S,): the window, 0 for none, and how many of a tag it may hold."""
        dials, surfaces = self.dials, self.config.surfaces.values()
        window = [dials.category_window if s.category_window is None else s.category_window for s in surfaces]
        most = [dials.category_most if s.category_most is None else s.category_most for s in surfaces]
        return np.array(window, np.int64), np.array(most, np.int64)

    def _likeness(self, requests: Requests, candidates: Candidates) -> Likeness:
        others = np.concatenate([candidates.item, requests.history.item], axis=1)
        related = same_creator(self.snapshot, candidates.item, others)
        tags = tag_vectors(self.snapshot, others)
        cosine = cosines(tags, candidates.item.shape[1])
        return Likeness(tags, related, cosine, np.maximum(cosine, related))

    def _pool(
        self, requests: Requests, candidates: Candidates, allowed: np.ndarray, likeness: Likeness, diversity: np.ndarray
    ) -> Pool:
        dials, k = self.dials, allowed.shape[1]
        relevant = relevance(candidates.score, allowed)
        rare = unlike = relevant
        if dials.novelty or dials.serendipity:
            items = self.items or SnapshotValues(self.snapshot)
            rare = surprise(items, candidates.item, requests.time, allowed)
        if dials.serendipity:
            known = np.where((requests.history.weight > 0)[:, None, :], likeness.alike[:, :, k:], 0)
            unlike = 1.0 - known.max(axis=2, initial=0)
        return Pool(worth(dials, relevant, diversity, rare, unlike), allowed, np.isfinite(candidates.score))

    def _preferences(self, requests: Requests, likeness: Likeness, diversity: np.ndarray, n: int) -> list[Preference]:
        dials, k = self.dials, likeness.alike.shape[1]
        found: list[Preference] = []
        strength = (1 - dials.calibration) * diversity
        if dials.diversity and dials.selection == "dpp":
            found.append(Determinantal(kernel(likeness.cosine[:, :, :k], likeness.related[:, :, :k]), strength, n))
        elif dials.diversity:
            found.append(MarginalRelevance(likeness.alike[:, :, :k], strength))
        if dials.calibration:
            shares = likeness.tags**2  # of a unit vector over equal tags: what each tag has of the item
            wanted = own_mix(requests.history, shares[:, k:])
            found.append(TasteCalibration(shares[:, :k], wanted, dials.calibration))
        return found

    def _constraints(self, requests: Requests, likeness: Likeness, n: int) -> list[Constraint]:
        """In the order in which they give way."""
        k = likeness.alike.shape[1]
        found: list[Constraint] = []
        windows, most = self._category_window
        if (window := windows[requests.surface]).any():
            found.append(CategoryWindow(likeness.tags[:, :k] > 0, window, most[requests.surface], n))
        if gap := self.dials.same_creator_gap:
            found.append(ItemGap(likeness.related[:, :, :k], gap, CREATOR_GAP))
        return found

    def _exploration(self, requests: Requests) -> Exploration | None:
        explore = self.dials.exploration
        if not explore.share:
            return None
        return Exploration(explore.share, frozenset(p - 1 for p in explore.positions), seeds(requests))


def _nothing(candidates: Candidates, n: int) -> Slates:
    """Slates without an item."""
    shape = (len(candidates), n)
    return Slates(
        item=np.full(shape, NONE, np.int32),
        score=np.zeros(shape, np.float32),
        source=np.zeros(shape, np.uint32),
        reason=np.zeros(shape, np.int8),
        reason_item=np.full(shape, NONE, np.int32),
        propensity=np.ones(shape, np.float32),
        sources=candidates.sources,
        degraded=candidates.degraded,
    )
