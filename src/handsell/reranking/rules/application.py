"""Apply rules to a batch, before the slates are selected.

Order: items are removed; positions and counts are filled by precedence of the kinds (exclude, pin, include, quota),
within a kind in the order of the file; weights order the other candidates. kind.py says what a rule can do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.reranking.mmr import scale_scores
from handsell.reranking.rules.backfill import Backfill
from handsell.reranking.rules.kind import RuleMatch
from handsell.reranking.rules.pacing import Debt, Pacing
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.slots import Slots
from handsell.reranking.selection import Constraint

NOT_FINITE_PENALTY = 100.0  # below every finite score


@dataclass(frozen=True, slots=True)
class RuledCandidates:
    """Input of the selection. K may have grown by items that rules took from the catalog, behind the others."""

    candidates: Candidates
    allowed: np.ndarray  # (B, K) bool
    boost: np.ndarray  # (B, K) float64, added to relevance (0..1 within the request)
    pin: np.ndarray | None  # (B, n) int64 column of the candidate at each position, -1: open; None: all open
    constraints: tuple[Constraint, ...]  # on the order of the slate
    unmet: dict[str, np.ndarray]  # rules that cannot hold, by label → for which requests (B,) bool
    pinned: dict[str, tuple[np.ndarray, int]]  # by label → requests (B,) bool with the pin, and its column of `pin`

    def displaced(self, item: np.ndarray) -> dict[str, np.ndarray]:
        """Return pins that slates (B, n) do not show at their position, because the slate ended before it."""
        found = {}
        for label, (rows, place) in self.pinned.items():
            if self.pin is None or not rows.any():
                continue
            column = self.pin[:, place]
            wanted = self.candidates.item[np.arange(len(item)), column]
            if (late := rows & (column != NONE) & (item[:, place] != wanted)).any():
                found[label] = late
        return found


@dataclass(frozen=True, slots=True)
class _Scope:
    """The requests and positions of a batch to which each of R rules applies."""

    requests: Requests
    active: np.ndarray  # (R, B) bool
    width: np.ndarray  # (R, B) int, positions to which the rule refers
    shown: np.ndarray  # (B,) int, positions that the caller sees

    @classmethod
    def of(cls, ruleset: RuleSet, requests: Requests, n: int) -> _Scope:
        shown = np.full(len(requests), n) if requests.count is None else np.minimum(requests.count, n).astype(int)
        return cls(requests, ruleset.active(requests), np.minimum(ruleset.within, shown), shown)


class _Draft:
    """The candidates of a batch, matched, filtered and weighed."""

    def __init__(self, ruleset: RuleSet, scope: _Scope, lift: np.ndarray, candidates: Candidates, allowed: np.ndarray):
        self.candidates, self._scope = candidates, scope
        self.matching = ruleset.matches(candidates.item, scope.requests.time) & scope.active[:, :, None]  # (R, B, K)
        for r in ruleset.removing:
            allowed = allowed & ~ruleset.effects[r].remove(self.match(r))
        self.allowed = allowed
        plain = scale_scores(candidates.score, allowed)
        factor, self.boost = np.ones_like(plain), np.zeros_like(plain)
        for r in ruleset.weighing:
            times, plus = ruleset.effects[r].weigh(self.match(r))
            if not np.isscalar(times) or times != 1:
                factor += factor * (times - 1) * self.matching[r]
            if not np.isscalar(plus) or plus != 0:
                self.boost += plus * self.matching[r]
        for r, plus in zip(ruleset.paced, lift.tolist(), strict=True):
            if plus:
                self.boost += plus * self.matching[r]
        if ruleset.weighing:
            self.boost += plain * (factor - 1)
        value = plain + self.boost
        if not (finite := np.isfinite(candidates.score)).all():
            value -= NOT_FINITE_PENALTY * ~finite
        self.value = np.where(allowed, value, -np.inf)

    def match(self, r: int) -> RuleMatch:
        return RuleMatch(self._scope.requests, self.candidates.item, self.matching[r], self._scope.active[r])


def apply_rules(
    ruleset: RuleSet,
    pacing: Pacing,
    backfill: Backfill,
    requests: Requests,
    candidates: Candidates,
    allowed: np.ndarray,
    n: int,
) -> RuledCandidates:
    """Apply rules to slates of n positions; allowed (B, K) by eligibility."""
    scope = _Scope.of(ruleset, requests, n)
    debt = pacing.debt(int(requests.time.max()))
    lift = debt.lift
    draft = _Draft(ruleset, scope, lift, candidates, allowed)
    slots = Slots(draft.value, n)
    least, most = _bounds(ruleset, pacing, scope, draft, slots, debt)
    missing = _count_missing(ruleset, scope, draft, least)
    if missing.any():
        draft = _Draft(ruleset, scope, lift, *_add_missing(backfill, scope, draft, missing))
        slots = Slots(draft.value, n)
    unmet = _fill(ruleset, scope, draft, slots, least, most)
    label = [effect.label for effect in ruleset.effects]
    constraints = (ruleset.effects[r].constraint(draft.match(r)) for r in ruleset.constraining if scope.active[r].any())
    return RuledCandidates(
        draft.candidates,
        draft.allowed,
        draft.boost,
        slots.pin if (slots.pin != NONE).any() else None,
        tuple(constraint for constraint in constraints if constraint is not None),
        {label[r]: unmet[r] for r in np.flatnonzero(unmet.any(axis=1))},
        {label[r]: (scope.active[r] & ~unmet[r], place) for r, place in ruleset.pins.items() if place < n},
    )


def _bounds(
    ruleset: RuleSet, pacing: Pacing, scope: _Scope, draft: _Draft, slots: Slots, debt: Debt
) -> tuple[np.ndarray, np.ndarray]:
    """(R, B) least and greatest number of each rule's items in each slate; 0 and all positions without a bound."""
    least, most = np.zeros(scope.active.shape, int), scope.width.copy()
    for r in ruleset.bounding:
        low, high = ruleset.effects[r].bounds(draft.match(r), scope.width[r])
        least[r] = low * scope.active[r]
        most[r] = np.where(scope.active[r], np.maximum(high, least[r]), scope.width[r])
    if paced := ruleset.paced:
        natural = (draft.matching[paced] & draft.allowed & (slots.rank < scope.width[paced][:, :, None])).sum(axis=2)
        least[paced], most[paced] = pacing.slots(debt, scope.active[paced], natural, scope.width[paced])
    return least, most


def _count_missing(ruleset: RuleSet, scope: _Scope, draft: _Draft, least: np.ndarray) -> np.ndarray:
    """(R, B) number of items that a rule needs beyond its candidates."""
    needed = least.copy()
    for r in ruleset.pins:
        needed[r] = np.maximum(needed[r], scope.active[r])
    return np.maximum(needed - (draft.matching & draft.allowed).sum(axis=2), 0)


def _add_missing(
    backfill: Backfill, scope: _Scope, draft: _Draft, missing: np.ndarray
) -> tuple[Candidates, np.ndarray]:
    """Return candidates and allowed, extended by missing (R, B) items from the catalog."""
    candidates, allowed = draft.candidates, draft.allowed
    for r in np.flatnonzero(missing.any(axis=1)):
        count = int(missing[r].max())
        rows = np.flatnonzero(missing[r])
        some = scope.requests if len(rows) == len(allowed) else scope.requests.take(rows)
        found = np.full((len(allowed), count), NONE, np.int32)
        found[rows] = backfill.find(int(r), some, candidates.item[rows], count)
        found[np.arange(count) >= missing[r][:, None]] = NONE
        candidates, allowed = extend(candidates, allowed, found)
    return candidates, allowed


def extend(candidates: Candidates, allowed: np.ndarray, items: np.ndarray) -> tuple[Candidates, np.ndarray]:
    """Append items (B, X), allowed where they are not -1.

    Their score is the lowest of their request: ranking put them below the other candidates, or never saw them.
    """
    rows, more = items.shape
    usable = np.where(allowed & np.isfinite(candidates.score), candidates.score, np.inf).min(axis=1, initial=np.inf)
    score = np.where(np.isfinite(usable), usable, 0).astype(candidates.score.dtype)[:, None].repeat(more, axis=1)
    unknown = np.full((rows, more, len(candidates.sources)), np.nan, np.float32)
    wider = replace(
        candidates,
        item=np.concatenate([candidates.item, items], axis=1),
        fused=np.concatenate([candidates.fused, np.zeros((rows, more), candidates.fused.dtype)], axis=1),
        source_score=np.concatenate([candidates.source_score, unknown], axis=1),
        source_rank=np.concatenate([candidates.source_rank, unknown], axis=1),
        score=np.concatenate([candidates.score, score], axis=1),
    )
    return wider, np.concatenate([allowed, items != NONE], axis=1)


def _fill(
    ruleset: RuleSet, scope: _Scope, draft: _Draft, slots: Slots, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """Fill positions in order of precedence and remove what exceeds a bound; (R, B) bool where a rule cannot hold."""
    unmet = np.zeros(scope.active.shape, bool)
    for r in ruleset.filling:
        if (place := ruleset.pins.get(r)) is not None:
            rows = scope.active[r] & (place < scope.shown)
            if rows.any():
                unmet[r] = rows & ~slots.put(rows, draft.matching[r], scope.shown, place)
        if r in ruleset.paced:
            _fill_bounds(scope, draft, slots, r, least[r], most[r])  # later slates make up for this one
        elif r in ruleset.bounding:
            unmet[r] |= _fill_bounds(scope, draft, slots, r, least[r], most[r])
    return unmet


def _fill_bounds(scope: _Scope, draft: _Draft, slots: Slots, r: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    mine, width = draft.matching[r], scope.width[r]
    unmet = np.zeros(len(least), bool)
    if least.any():
        lacking = least - slots.count(mine, width)
        for step in range(int(lacking.max(initial=0))):
            rows = lacking > step
            unmet |= rows & ~slots.put(rows, mine, width)
    capped = scope.active[r] & (most < width)
    if capped.any() and ((mine & draft.allowed).sum(axis=1) > most)[capped].any():
        surplus = slots.surplus(mine, np.where(capped, most, mine.shape[1]), scope.shown)
        draft.allowed = draft.allowed & ~surplus
        slots.value[surplus] = -np.inf
        unmet |= capped & ((mine & draft.allowed).sum(axis=1) > most)
    return unmet
