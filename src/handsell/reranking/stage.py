"""Re-ranking: business rules, diversity, constraints on the order, exploration, and a reason for each item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from handsell.catalog.new_items import count_events
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests, Slates
from handsell.core.funnel import pack_source_bits
from handsell.eligibility.mask import Eligibility
from handsell.features.item import ItemValues, SnapshotValues
from handsell.reranking.calibrated import TasteCalibration, compute_tag_mix
from handsell.reranking.config import RerankingConfig
from handsell.reranking.dpp import Determinantal, build_kernel
from handsell.reranking.exploration import UNIFORM, Choice, Exploration, derive_seeds
from handsell.reranking.fatigue import compute_cost, count_ignored_impressions
from handsell.reranking.mmr import MarginalRelevance, scale_scores
from handsell.reranking.new_items import NewItems
from handsell.reranking.reasons import CODE, Evidence, choose_reasons, find_liked_weight
from handsell.reranking.rules.live_rules import LiveRules
from handsell.reranking.selection import Constraint, Pool, Preference, ScoreFloor, select
from handsell.reranking.similarity import build_tag_vectors, compute_cosines, gather_creators, match_creators
from handsell.reranking.spacing import CREATOR_GAP, CategoryWindow, ItemGap
from handsell.reranking.thompson import ThompsonChoice
from handsell.reranking.utility import compute_surprise, compute_utility, personalize_diversity

ExplorationWatch = Callable[[Exploration, np.ndarray], Exploration]
"""(exploration, items (B, K) of the candidates) → an exploration that draws the same."""


@dataclass(frozen=True)
class Similarities:
    """Between B requests' K candidates and their M = K + T candidates and history items."""

    tags: np.ndarray  # (B, M, U) float32 unit tag vectors, over the tags that occur in the row
    creator: np.ndarray  # (B, M) int32
    k: int

    @cached_property
    def related(self) -> np.ndarray:
        """(B, K, K) bool, candidates with the same creator."""
        return match_creators(self.creator[:, : self.k], self.creator[:, : self.k])

    @cached_property
    def cosine(self) -> np.ndarray:
        """(B, K, K) float32 in 0..1, of the candidates' tags."""
        return compute_cosines(self.tags[:, : self.k], self.tags[:, : self.k])

    @property
    def between_candidates(self) -> np.ndarray:
        """(B, K, K) float32, the cosine, or 1 for the same creator."""
        return np.maximum(self.cosine, self.related)

    def compare_with_history(self, columns: np.ndarray) -> np.ndarray:
        """Return the similarity (B, n, T) float32 of candidates, by columns (B, n), to the items of the history."""
        row = np.arange(len(columns))[:, None]
        cosine = compute_cosines(self.tags[row, columns], self.tags[:, self.k :])
        return np.maximum(cosine, match_creators(self.creator[row, columns], self.creator[:, self.k :]))


@dataclass(frozen=True)
class LocalReranking:
    """Re-ranking in this process. Eligibility is checked again and fails closed.

    `items` are the values of items that novelty reads, by default the snapshot's; evaluation passes them as of each
    request's day.
    """

    snapshot: Snapshot
    eligibility: Eligibility
    config: Config
    items: ItemValues | None = None
    rules: LiveRules | None = None  # business rules; None in offline evaluation
    new_items: NewItems | None = None  # new items that get their share of impressions; None: they get none
    watch: ExplorationWatch | None = None  # sees the chances of exploration, for off-policy evaluation

    def with_snapshot(self, snapshot: Snapshot) -> LocalReranking:
        """Return the stage on the next version of the live catalog; its rules follow."""
        eligibility = self.eligibility.with_snapshot(snapshot)
        if self.rules is not None:
            self.rules.follow(snapshot, eligibility)
        if self.new_items is not None:
            self.new_items.follow(snapshot)
        return replace(self, snapshot=snapshot, eligibility=eligibility)

    def with_config(self, config: Config, rules: LiveRules | None) -> LocalReranking:
        """Return the stage with other settings of surfaces and re-ranking, and with other business rules.

        Another share of new items is paced by the slates of the returned stage alone.
        """
        new_items, settings = self.new_items, config.reranking.exploration.new_items
        if settings != self.config.reranking.exploration.new_items:
            new_items = NewItems(settings, self.snapshot, config.surface_names) if settings.share else None
        eligibility = self.eligibility.with_config(config)
        return replace(self, eligibility=eligibility, config=config, rules=rules, new_items=new_items)

    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates:
        """Return slates of n positions, padded with -1 where fewer than n candidates are allowed."""
        if not candidates.item.shape[1]:
            return _empty_slates(candidates, n)
        allowed = self.eligibility.allows(requests, candidates.item)
        scores, carried = candidates.score, _find_carried(candidates)
        candidates = _lower_scores(candidates, carried)
        ruled = None if self.rules is None else self.rules.apply(requests, candidates, allowed, n)
        if ruled is not None:
            candidates, allowed = ruled.result.candidates, ruled.result.allowed
        scores = np.concatenate([scores, candidates.score[:, scores.shape[1] :]], axis=1)
        similar = self._compare(requests, candidates)
        constraints = self._constraints(requests, similar, n)
        diversity = personalize_diversity(self.settings, requests.profile, len(self.snapshot.tags))
        pool = self._pool(requests, candidates, allowed, similar, diversity)
        if ruled is not None:
            constraints += ruled.result.constraints
            pool = replace(pool, boost=ruled.result.boost, pin=ruled.result.pin)
        pool = replace(pool, drawn_only=_find_drawn_only(carried, pool))
        ignored = count_ignored_impressions(requests, candidates.item) if self.settings.fatigue.weight else None
        if ignored is not None:
            pool = replace(pool, utility=pool.utility - compute_cost(ignored, self.settings.fatigue.weight))
        if share := self.settings.floor:
            pool = replace(pool, floor=ScoreFloor.of(share, candidates.score, pool.boost, ignored))
        preferences = self._preferences(requests, similar, diversity, n)
        chosen = select(
            pool, n, preferences, constraints, self._exploration(requests, candidates.item, scores, ignored, n)
        )
        filled, order = chosen.column != NONE, np.maximum(chosen.column, 0)
        row = np.arange(len(order))[:, None]
        item = np.where(filled, candidates.item[row, order], NONE)
        source = np.where(filled, pack_source_bits(candidates.source_rank[row, order]), 0).astype(np.uint32)
        evidence = Evidence(item, source, candidates.sources, similar.compare_with_history(order))
        reason, reason_item = choose_reasons(requests, evidence, self.snapshot, self._liked)
        slates = Slates(
            item=item,
            score=np.where(filled, scores[row, order], 0).astype(np.float32),
            source=source,
            reason=np.where(chosen.explored, CODE["explore"], reason).astype(np.int8),
            reason_item=np.where(chosen.explored, NONE, reason_item).astype(np.int32),
            propensity=chosen.propensity,
            sources=candidates.sources,
            relaxed=chosen.broken,
            constraints=tuple(constraint.name for constraint in constraints),
            degraded=candidates.degraded,
        )
        if self.new_items is not None:
            self.new_items.count(requests, slates.item)
        return slates if ruled is None else ruled.finish(requests, slates)

    @cached_property
    def settings(self) -> RerankingConfig:
        """The settings of `[reranking]` with their strength applied."""
        return self.config.reranking.scaled()

    @cached_property
    def without_counting(self) -> LocalReranking:
        """The same stage for slates that no user sees: rules do not count their impressions."""
        rules = None if self.rules is None else self.rules.without_counting()
        new_items = None if self.new_items is None else self.new_items.without_counting()
        return self if rules is None and new_items is None else replace(self, rules=rules, new_items=new_items)

    @cached_property
    def _liked(self) -> float:
        return find_liked_weight(self.config.events)

    @cached_property
    def _category_window(self) -> tuple[np.ndarray, np.ndarray]:
        """By surface code (S,): length of the window, 0 for none, and the most items of one tag in it."""
        settings, surfaces = self.settings, self.config.surfaces.values()
        window = [settings.category_window if s.category_window is None else s.category_window for s in surfaces]
        most = [settings.category_most if s.category_most is None else s.category_most for s in surfaces]
        return np.array(window, np.int64), np.array(most, np.int64)

    def _compare(self, requests: Requests, candidates: Candidates) -> Similarities:
        others = np.concatenate([candidates.item, requests.history.item], axis=1)
        creator = gather_creators(self.snapshot, others)
        return Similarities(build_tag_vectors(self.snapshot, others), creator, candidates.item.shape[1])

    def _pool(
        self,
        requests: Requests,
        candidates: Candidates,
        allowed: np.ndarray,
        similar: Similarities,
        diversity: np.ndarray,
    ) -> Pool:
        settings = self.settings
        relevant = scale_scores(candidates.score, allowed)
        rare = unlike = relevant
        if settings.novelty or settings.serendipity:
            items = self.items or SnapshotValues(self.snapshot)
            rare = compute_surprise(items, candidates.item, requests.time, allowed)
        if settings.serendipity:
            every = similar.compare_with_history(np.broadcast_to(np.arange(allowed.shape[1]), allowed.shape))
            known = np.where((requests.history.weight > 0)[:, None, :], every, 0)
            unlike = 1.0 - known.max(axis=2, initial=0)
        utility = compute_utility(settings, relevant, diversity, rare, unlike)
        return Pool(utility, allowed, np.isfinite(candidates.score))

    def _preferences(
        self, requests: Requests, similar: Similarities, diversity: np.ndarray, n: int
    ) -> list[Preference]:
        settings, k = self.settings, similar.k
        found: list[Preference] = []
        strength = (1 - settings.calibration) * diversity
        if settings.diversity and settings.selection == "dpp":
            kernel = build_kernel(similar.cosine, similar.related)
            found.append(Determinantal(kernel, strength, n))
        elif settings.diversity:
            found.append(MarginalRelevance(similar.between_candidates, strength))
        if settings.calibration:
            shares = similar.tags**2  # squares of a unit vector add up to 1: each tag's share of the item
            wanted = compute_tag_mix(requests.history, shares[:, k:])
            found.append(TasteCalibration(shares[:, :k], wanted, settings.calibration))
        return found

    def _constraints(self, requests: Requests, similar: Similarities, n: int) -> list[Constraint]:
        """In the order in which they are relaxed."""
        found: list[Constraint] = []
        windows, most = self._category_window
        if (window := windows[requests.surface]).any():
            found.append(CategoryWindow(similar.tags[:, : similar.k] > 0, window, most[requests.surface], n))
        if gap := self.settings.same_creator_gap:
            found.append(ItemGap(similar.related, gap, CREATOR_GAP))
        return found

    def _exploration(
        self, requests: Requests, items: np.ndarray, scores: np.ndarray, ignored: np.ndarray | None, n: int
    ) -> Exploration | None:
        """Return how slates of n explore the candidates items (B, K) with their scores; None: not at all.

        To have been ignored (B, K) times counts as so many failures after one success.
        """
        settings = self.settings.exploration
        if not settings.share and self.new_items is None:
            return None
        choice: Choice = UNIFORM
        if settings.choice == "thompson":
            scores = scores if ignored is None else scores / (1 + ignored)
            choice = ThompsonChoice.of(scores, self._count_events(items), settings.prior_strength)
        positions = frozenset(p - 1 for p in settings.positions)
        floor = None if self.new_items is None else self.new_items.plan(requests, items, positions, n)
        found = Exploration(settings.share, positions, derive_seeds(requests), choice, floor)
        return found if self.watch is None else self.watch(found, items)

    def _count_events(self, items: np.ndarray) -> np.ndarray:
        """(B, K) events of each item that its score may rest on: of the snapshot, and impressions counted since."""
        events = count_events(self.snapshot, items)
        return events if self.new_items is None else events + self.new_items.get_impressions(items)


def _find_carried(candidates: Candidates) -> np.ndarray | None:
    """(B, K) bool, candidates that only exploration may show; None without any."""
    if not candidates.carried:
        return None
    width = candidates.item.shape[1]
    return np.broadcast_to(np.arange(width) >= width - candidates.carried, candidates.item.shape)


def _lower_scores(candidates: Candidates, carried: np.ndarray | None) -> Candidates:
    """Return candidates whose carried (B, K) ones have no lower score than the others, which sets the scale."""
    if carried is None:
        return candidates
    least = np.where(carried | (candidates.item == NONE), np.inf, candidates.score).min(axis=1, keepdims=True)
    least = np.where(np.isfinite(least), least, 0)
    return replace(candidates, score=np.where(carried, least, candidates.score).astype(candidates.score.dtype))


def _find_drawn_only(carried: np.ndarray | None, pool: Pool) -> np.ndarray | None:
    """(B, K) bool, carried candidates without those that a rule pins; columns that rules added are not carried."""
    if carried is None:
        return None
    found = np.zeros(pool.allowed.shape, bool)
    found[:, : carried.shape[1]] = carried
    if pool.pin is not None:
        row, position = np.nonzero(pool.pin != NONE)
        found[row, pool.pin[row, position]] = False
    return found


def _empty_slates(candidates: Candidates, n: int) -> Slates:
    """Slates without items."""
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
