"""Pacing: quotas of the day, held slate by slate from what has been shown so far.

What a quota is owed is a number of impressions: least · shown - own. It lifts the quota's items by a boost that grows
with the debt; past PATIENCE impressions, where the boost is at its limit, slots are forced. What it has too much is
treated the same way with the sign turned: the items are buried, then barred.

Each replica pays its part of the common debt, by its part of the traffic, and all of the debt it made itself since the
common counts were read: so the parts add up to the debt, and replicas do not pay it twice. docs/decisions/010.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import floor, nan

import numpy as np

from handsell.reranking.rules.counts import Counts, ShownSlates, counted, days
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.scope import QUARTER_US

PATIENCE = 2.0  # impressions that may be owed before slots are forced
MOST_LIFT = 0.25  # of the span of relevance in a request, reached at PATIENCE
FORCED_SHARE = 1 / 3  # of a slate, at least one slot
MEMORY = 0.7  # of the estimated part of the traffic, from one reading of the common counts to the next
LEAST_PART = 0.02
BUCKET_S = 0.05
MOST_BUCKETS = 64  # kept apart; older ones are put together


@dataclass(frozen=True, slots=True)
class Common:
    """What all replicas have shown on the quotas' days, as the impression log had it."""

    counts: Counts
    day: np.ndarray  # (Q,)
    cut: float  # own slates of before this moment (monotonic s) are in it


@dataclass(frozen=True, slots=True)
class Debt:
    """Of each quota (Q,), in impressions."""

    owed: np.ndarray  # to `least`; negative: more than that was shown
    left: np.ndarray  # below `most`; negative: too much was shown

    @property
    def lift(self) -> np.ndarray:
        """(Q,) boost of the quota's items, negative where they have had too much."""
        gain = MOST_LIFT / PATIENCE
        up = np.minimum(np.maximum(self.owed, 0) * gain, MOST_LIFT)
        return up - np.minimum(np.maximum(-self.left, 0) * gain, MOST_LIFT)


class Pacing:
    """The paced quotas (Q) of one rule set in this process. Not for several threads, but for `common`."""

    def __init__(self, ruleset: RuleSet, clock: Callable[[], float] = time.monotonic):
        self.ruleset, self._clock = ruleset, clock
        quotas = [ruleset.quota(r) for r in ruleset.paced]
        self.least, self.most = np.array([q.least for q in quotas]), np.array([q.most for q in quotas])
        self.day, self.since = np.full(len(quotas), -1), np.full(len(quotas), np.iinfo(np.int64).min)
        self._turns = np.iinfo(np.int64).min  # when days are looked at again
        self.common: Common | None = None  # replaced by whoever reads the log
        self._taken: Common | None = None
        self._part = np.ones(len(quotas))  # of the traffic
        self._recent: list[tuple[float, Counts]] = []  # own slates that the common counts lack, by moment
        self._own = Counts.zero(len(quotas))  # … and their sum

    def __len__(self) -> int:
        return len(self.least)

    # -- what is asked before a slate ----------------------------------------------------------------------------

    def debt(self, now: int) -> Debt:
        """At now µs, for this process."""
        self._turn(now)
        self._take_common()
        mine = self._mine()
        return Debt(self.least * mine.shown - mine.own, self.most * mine.shown - mine.own)

    def slots(
        self, debt: Debt, active: np.ndarray, natural: np.ndarray, width: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(Q, B) least and most items of the quota in each slate, each slate knowing of those before it.

        natural (Q, B): items that would be shown anyway, of width (Q, B) positions.
        """
        owed, left = debt.owed.copy(), debt.left.copy()
        force, cap = np.zeros(active.shape, int), width.astype(int)
        for q, b in zip(*np.nonzero(active), strict=True):
            w = int(width[q, b])
            owed[q] += self.least[q] * w
            left[q] += self.most[q] * w
            force[q, b] = min(max(int(owed[q] - PATIENCE), 0), max(int(w * FORCED_SHARE), 1), w)
            cap[q, b] = max(min(floor(left[q] + PATIENCE), w), force[q, b], 0)
            planned = min(max(int(natural[q, b]), force[q, b]), cap[q, b])
            owed[q] -= planned
            left[q] -= planned
        return force, cap

    # -- what is told after it -----------------------------------------------------------------------------------

    def note(self, seen: ShownSlates) -> None:
        self._turn(int(seen.time.max()))
        new, at = counted(self.ruleset, seen), self._clock()
        self._own = self._own + new
        if self._recent and at - self._recent[-1][0] < BUCKET_S:
            at, before = self._recent.pop()
            new = before + new
        self._recent.append((at, new))
        if len(self._recent) > MOST_BUCKETS:  # nobody reads the log: how late each was matters no more
            (_, first), (at, second) = self._recent[:2]
            self._recent[:2] = [(at, first + second)]

    def shares(self) -> tuple[tuple[str, float], ...]:
        """By quota, the share of today's impressions as far as this process knows; NaN before the first."""
        taken = self._taken_today()
        known = self._own if taken is None else self._own + taken
        names = [self.ruleset.rules.rules[r].name for r in self.ruleset.paced]
        pairs = zip(names, known.own.tolist(), known.shown.tolist(), strict=True)
        return tuple((name, own / shown if shown else nan) for name, own, shown in pairs)

    def goes_on_from(self, before: Pacing, now: int) -> None:
        """Take over the counts of quotas that have not changed; a new one counts from now µs on."""
        old = {before.ruleset.quota(r): q for q, r in enumerate(before.ruleset.paced)}
        same = np.array([old.get(self.ruleset.quota(r), -1) for r in self.ruleset.paced], int)
        new = same < 0
        self.since = np.where(new, now, before.since[same] if len(before) else now)
        if not len(before):
            return
        self.day, self._part = np.where(new, -1, before.day[same]), np.where(new, 1.0, before._part[same])
        kept = before._mine()
        self._set_recent([(self._clock(), Counts(kept.shown[same], kept.own[same]).only(~new))])

    # -- counts ----------------------------------------------------------------------------------------------------

    def _mine(self) -> Counts:
        taken = self._taken_today()
        if taken is None:
            return self._own
        return self._own + Counts(self._part * taken.shown, self._part * taken.own)

    def _set_recent(self, recent: list[tuple[float, Counts]]) -> None:
        self._recent = recent
        self._own = sum((counts for _, counts in recent), Counts.zero(len(self)))

    def _taken_today(self) -> Counts | None:
        return None if self._taken is None else self._taken.counts.only(self._taken.day == self.day)

    def _turn(self, now: int) -> None:
        """Quotas whose day has ended begin anew."""
        if now < self._turns:
            return
        self._turns = (now // QUARTER_US + 1) * QUARTER_US  # no day ends within a quarter of an hour, in any zone
        today = days(self.ruleset, np.array([now], np.int64))[:, 0] if len(self) else self.day
        ended = today > self.day
        if ended.any():
            self.day = np.where(ended, today, self.day)
            self._set_recent([(at, counts.only(~ended)) for at, counts in self._recent])

    def _take_common(self) -> None:
        """Take up newly read common counts: own slates that are in them are dropped, and say what part is ours."""
        common, before = self.common, self._taken
        if common is None or common is before:
            return
        merged = [counts for at, counts in self._recent if at < common.cut]
        self._set_recent([(at, counts) for at, counts in self._recent if at >= common.cut])
        if before is not None:
            more = np.where(before.day == common.day, common.counts.shown - before.counts.shown, common.counts.shown)
            ours = sum(merged, Counts.zero(len(self))).shown
            seen = np.divide(ours, more, out=self._part.copy(), where=more > 0)
            self._part = np.clip(MEMORY * self._part + (1 - MEMORY) * seen, LEAST_PART, 1)
        self._taken = common
