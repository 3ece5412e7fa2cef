"""Pacing: keep daily shares slate by slate, from what has been shown so far.

A rule's debt is a number of impressions: least share · shown - own. It boosts the rule's items in proportion to the
debt; beyond MAX_DEBT impressions, where the boost has reached its limit, slots are forced. A surplus over the greatest
share is treated likewise: the items are buried, then removed.

A replica pays its share of the debt that all replicas have in common, by its share of the traffic, and all of the debt
that it made since the shared counts were read. So the parts add up to the whole debt. docs/decisions/010.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import floor, nan

import numpy as np

from handsell.reranking.rules.counts import ImpressionCounts, ShownSlates, count_impressions, local_days
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.scope import QUARTER_US

MAX_DEBT = 2.0  # impressions of debt beyond which slots are forced
MAX_LIFT = 0.25  # of the span of relevance in a request, reached at MAX_DEBT
FORCED_SHARE = 1 / 3  # of a slate, at least one slot
SMOOTHING = 0.7  # smoothing of the estimated share of the traffic, from one reading of the shared counts to the next
LEAST_TRAFFIC = 0.02
BUCKET_S = 0.05  # own impressions are kept in buckets of this length
MAX_BUCKETS = 64  # older ones are merged


@dataclass(frozen=True, slots=True)
class SharedCounts:
    """Impressions of all replicas on the rules' current days, from the impression log."""

    counts: ImpressionCounts
    day: np.ndarray  # (Q,)
    cut: float  # monotonic s; own slates from before it are included


@dataclass(frozen=True, slots=True)
class Debt:
    """Impressions that each paced rule (Q,) is short of its share today, or above it."""

    owed: np.ndarray  # up to the least share; negative: more was shown
    left: np.ndarray  # up to the greatest share; negative: too much was shown

    @property
    def lift(self) -> np.ndarray:
        """(Q,) boost of the rule's items; negative after a surplus."""
        gain = MAX_LIFT / MAX_DEBT
        up = np.minimum(np.maximum(self.owed, 0) * gain, MAX_LIFT)
        return up - np.minimum(np.maximum(-self.left, 0) * gain, MAX_LIFT)


class Pacing:
    """The Q paced rules of one rule set in this process. Only `shared` may be set from another thread."""

    def __init__(self, ruleset: RuleSet, clock: Callable[[], float] = time.monotonic):
        self.ruleset, self._clock = ruleset, clock
        shares = [ruleset.effects[r].daily_share or (0.0, 1.0) for r in ruleset.paced]
        self.least, self.most = np.array(shares, float).reshape(-1, 2).T
        self.day, self.since = np.full(len(shares), -1), np.full(len(shares), np.iinfo(np.int64).min)
        self._next_check = np.iinfo(np.int64).min  # µs, when a day may have ended
        self.shared: SharedCounts | None = None  # set by SharedCountReader
        self._merged: SharedCounts | None = None
        self._traffic = np.ones(len(shares))  # this replica's share of all impressions
        self._recent: list[tuple[float, ImpressionCounts]] = []  # own slates that are not in `_merged`, with their time
        self._own = ImpressionCounts.zero(len(shares))  # their sum

    def __len__(self) -> int:
        return len(self.least)

    # -- before a slate ------------------------------------------------------------------------------------------

    def debt(self, now: int) -> Debt:
        """Return this replica's debt at now µs."""
        self._start_new_days(now)
        self._merge_shared()
        mine = self._mine()
        return Debt(self.least * mine.shown - mine.own, self.most * mine.shown - mine.own)

    def slots(
        self, debt: Debt, active: np.ndarray, natural: np.ndarray, width: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(Q, B) least and greatest number of the rule's items in each slate, given the slates before it in the batch.

        natural (Q, B): the rule's items among the best `width` (Q, B) candidates.
        """
        owed, left = debt.owed.copy(), debt.left.copy()
        force, cap = np.zeros(active.shape, int), width.astype(int)
        for q, b in zip(*np.nonzero(active), strict=True):
            w = int(width[q, b])
            owed[q] += self.least[q] * w
            left[q] += self.most[q] * w
            force[q, b] = min(max(int(owed[q] - MAX_DEBT), 0), max(int(w * FORCED_SHARE), 1), w)
            cap[q, b] = max(min(floor(left[q] + MAX_DEBT), w), force[q, b], 0)
            planned = min(max(int(natural[q, b]), force[q, b]), cap[q, b])
            owed[q] -= planned
            left[q] -= planned
        return force, cap

    # -- after a slate -------------------------------------------------------------------------------------------

    def add(self, seen: ShownSlates) -> None:
        """Count impressions of this replica."""
        self._start_new_days(int(seen.time.max()))
        new, at = count_impressions(self.ruleset, seen), self._clock()
        self._own = self._own + new
        if self._recent and at - self._recent[-1][0] < BUCKET_S:
            at, before = self._recent.pop()
            new = before + new
        self._recent.append((at, new))
        if len(self._recent) > MAX_BUCKETS:  # the log is not read, so that exact times do not matter
            (_, first), (at, second) = self._recent[:2]
            self._recent[:2] = [(at, first + second)]

    def shares(self) -> tuple[tuple[str, float], ...]:
        """Return each rule's share of today's impressions that this replica knows of; NaN before the first."""
        merged = self._select_merged_today()
        known = self._own if merged is None else self._own + merged
        names = [self.ruleset.rules.rules[r].name for r in self.ruleset.paced]
        pairs = zip(names, known.own.tolist(), known.shown.tolist(), strict=True)
        return tuple((name, own / shown if shown else nan) for name, own, shown in pairs)

    def continue_from(self, before: Pacing, now: int) -> None:
        """Take over the counts of rules that have not changed; a new rule counts from now µs on."""
        old = [before.ruleset.rules.rules[r] for r in before.ruleset.paced]
        rules = [self.ruleset.rules.rules[r] for r in self.ruleset.paced]
        same = np.array([old.index(rule) if rule in old else -1 for rule in rules], int)
        new = same < 0
        self.since = np.where(new, now, before.since[same] if len(before) else now)
        if not len(before):
            return
        self.day, self._traffic = np.where(new, -1, before.day[same]), np.where(new, 1.0, before._traffic[same])
        kept = before._mine()
        self._set_recent([(self._clock(), ImpressionCounts(kept.shown[same], kept.own[same]).where(~new))])

    # -- counts ----------------------------------------------------------------------------------------------------

    def _mine(self) -> ImpressionCounts:
        merged = self._select_merged_today()
        if merged is None:
            return self._own
        return self._own + ImpressionCounts(self._traffic * merged.shown, self._traffic * merged.own)

    def _set_recent(self, recent: list[tuple[float, ImpressionCounts]]) -> None:
        self._recent = recent
        self._own = sum((counts for _, counts in recent), ImpressionCounts.zero(len(self)))

    def _select_merged_today(self) -> ImpressionCounts | None:
        return None if self._merged is None else self._merged.counts.where(self._merged.day == self.day)

    def _start_new_days(self, now: int) -> None:
        """Reset the counts of rules whose day has ended."""
        if now < self._next_check:
            return
        self._next_check = (now // QUARTER_US + 1) * QUARTER_US  # in every zone a day ends on a quarter of an hour
        today = local_days(self.ruleset, np.array([now], np.int64))[:, 0] if len(self) else self.day
        ended = today > self.day
        if ended.any():
            self.day = np.where(ended, today, self.day)
            self._set_recent([(at, counts.where(~ended)) for at, counts in self._recent])

    def _merge_shared(self) -> None:
        """Take over newly read shared counts, drop own slates that they include, and estimate the share of traffic."""
        shared, before = self.shared, self._merged
        if shared is None or shared is before:
            return
        included = [counts for at, counts in self._recent if at < shared.cut]
        self._set_recent([(at, counts) for at, counts in self._recent if at >= shared.cut])
        if before is not None:
            more = np.where(before.day == shared.day, shared.counts.shown - before.counts.shown, shared.counts.shown)
            ours = sum(included, ImpressionCounts.zero(len(self))).shown
            seen = np.divide(ours, more, out=self._traffic.copy(), where=more > 0)
            self._traffic = np.clip(SMOOTHING * self._traffic + (1 - SMOOTHING) * seen, LEAST_TRAFFIC, 1)
        self._merged = shared
