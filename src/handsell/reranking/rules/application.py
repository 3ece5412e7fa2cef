"""Rules applied to a batch, before the slate is selected: what is barred, moved, brought in and put in its place.

Precedence: exclude, pin, include, quota, then bury and boost. Among rules of one kind the earlier in the file is first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from handsell.core.batches import NONE, Candidates, Requests
from handsell.reranking.mmr import relevance
from handsell.reranking.rules.backfill import Stock
from handsell.reranking.rules.pacing import Debt, Pacing
from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.schema import Include, Pin
from handsell.reranking.rules.slots import Slots

SINK = 100.0  # below every finite score


@dataclass(frozen=True, slots=True)
class Applied:
    """What selection is given; K may have grown by items that rules brought in, behind the others."""

    candidates: Candidates
    allowed: np.ndarray  # (B, K) bool
    boost: np.ndarray  # (B, K) float64, added to relevance (0..1 within the request)
    pin: np.ndarray | None  # (B, n) int64 column that stands at this position, -1: open; None: all open
    unmet: dict[str, np.ndarray]  # rules that cannot hold, as `rule:<name>`, and for which requests: (B,) bool
    places: dict[str, tuple[np.ndarray, int]]  # pins: for which requests (B,) bool, and the column of `pin`

    def moved(self, item: np.ndarray) -> dict[str, np.ndarray]:
        """Pins that do not stand in slates (B, n) where they should: a slate ended before their position."""
        found = {}
        for name, (rows, place) in self.places.items():
            if self.pin is None or not rows.any():
                continue
            column = self.pin[:, place]
            wanted = self.candidates.item[np.arange(len(item)), column]
            if (late := rows & (column != NONE) & (item[:, place] != wanted)).any():
                found[name] = late
        return found


@dataclass(frozen=True, slots=True)
class Situation:
    """A batch as rules see it. R rules."""

    requests: Requests
    active: np.ndarray  # (R, B) bool
    width: np.ndarray  # (R, B) int, positions within which the rule looks
    shown: np.ndarray  # (B,) int, positions that the caller sees


class _Board:
    """The candidates of a batch, matched and weighed."""

    def __init__(
        self, ruleset: RuleSet, here: Situation, lift: np.ndarray, candidates: Candidates, allowed: np.ndarray
    ):
        self.candidates = candidates
        self.match = ruleset.matches(candidates.item, here.requests.time) & here.active[:, :, None]  # (R, B, K)
        if ruleset.excludes:
            allowed = allowed & ~self.match[ruleset.excludes].any(axis=0)
        self.allowed = allowed
        plain = relevance(candidates.score, allowed)
        factor, self.boost = np.ones_like(plain), np.zeros_like(plain)
        for rule, more, added in ruleset.weights:
            if more:
                factor += factor * more * self.match[rule]
            if added:
                self.boost += added * self.match[rule]
        for rule, added in zip(ruleset.paced, lift.tolist(), strict=True):
            if added:
                self.boost += added * self.match[rule]
        if ruleset.weights:
            self.boost += plain * (factor - 1)
        value = plain + self.boost
        if not (finite := np.isfinite(candidates.score)).all():
            value -= SINK * ~finite
        self.value = np.where(allowed, value, -np.inf)


def apply(
    ruleset: RuleSet,
    pacing: Pacing,
    stock: Stock,
    requests: Requests,
    candidates: Candidates,
    allowed: np.ndarray,
    n: int,
) -> Applied:
    """For slates of n positions; allowed (B, K) as eligibility has it."""
    here = _situation(ruleset, requests, n)
    debt = pacing.debt(int(requests.time.max()))
    lift = debt.lift
    board = _Board(ruleset, here, lift, candidates, allowed)
    slots = Slots(board.value, n)
    least, most = _quotas(ruleset, pacing, here, board, slots, debt)
    missing = _missing(ruleset, here, board, least)
    if missing.any():
        board = _Board(ruleset, here, lift, *_brought_in(ruleset, stock, here, board, missing))
        slots = Slots(board.value, n)
    unmet = _fill(ruleset, here, board, slots, least, most)
    names = {f"rule:{ruleset.rules.rules[r].name}": unmet[r] for r in np.flatnonzero(unmet.any(axis=1))}
    pin = slots.pin if (slots.pin != NONE).any() else None
    places = {
        f"rule:{rule.name}": (here.active[r] & ~unmet[r], rule.position - 1)
        for r in ruleset.pins
        if isinstance(rule := ruleset.rules.rules[r], Pin) and rule.position <= n
    }
    return Applied(board.candidates, board.allowed, board.boost, pin, names, places)


def _situation(ruleset: RuleSet, requests: Requests, n: int) -> Situation:
    shown = np.full(len(requests), n) if requests.count is None else np.minimum(requests.count, n).astype(int)
    return Situation(requests, ruleset.active(requests), np.minimum(ruleset.reach, shown), shown)


def _quotas(
    ruleset: RuleSet, pacing: Pacing, here: Situation, board: _Board, slots: Slots, debt: Debt
) -> tuple[np.ndarray, np.ndarray]:
    """(R, B) least and most items that each quota asks of each slate; 0 and everything for other rules."""
    least, most = np.zeros(here.active.shape, int), here.width.copy()
    for r in ruleset.quotas:
        quota = ruleset.quota(r)
        if quota.per == "slate":
            least[r] = np.ceil(quota.least * here.width[r] - 1e-9) * here.active[r]
            held = np.maximum(np.floor(quota.most * here.width[r] + 1e-9), least[r])
            most[r] = np.where(here.active[r], held, here.width[r])
    if paced := ruleset.paced:
        natural = (board.match[paced] & board.allowed & (slots.rank < here.width[paced][:, :, None])).sum(axis=2)
        least[paced], most[paced] = pacing.slots(debt, here.active[paced], natural, here.width[paced])
    return least, most


def _missing(ruleset: RuleSet, here: Situation, board: _Board, least: np.ndarray) -> np.ndarray:
    """(R, B) items that a rule asks for and that no candidate is."""
    wanted = least.copy()
    for r in (*ruleset.pins, *ruleset.includes):
        wanted[r] = here.active[r]
    return np.maximum(wanted - (board.match & board.allowed).sum(axis=2), 0)


def _brought_in(
    ruleset: RuleSet, stock: Stock, here: Situation, board: _Board, missing: np.ndarray
) -> tuple[Candidates, np.ndarray]:
    """Candidates and what is allowed, with items of the catalog behind them.

    They carry the lowest score of their request: ranking put them below the others, or never saw them.
    """
    candidates, allowed = board.candidates, board.allowed
    for r in np.flatnonzero(missing.any(axis=1)):
        count = int(missing[r].max())
        asks = np.flatnonzero(missing[r])
        some = here.requests if len(asks) == len(allowed) else here.requests.take(asks)
        found = np.full((len(allowed), count), NONE, np.int32)
        found[asks] = stock.pick(int(r), some, candidates.item[asks], count)
        found[np.arange(count) >= missing[r][:, None]] = NONE
        candidates, allowed = extended(candidates, allowed, found)
    return candidates, allowed


def extended(candidates: Candidates, allowed: np.ndarray, items: np.ndarray) -> tuple[Candidates, np.ndarray]:
    """Items (B, X), allowed where they are not -1, behind the others."""
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
    ruleset: RuleSet, here: Situation, board: _Board, slots: Slots, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """Fill positions in order of precedence and bar what is too much; (R, B) bool where a rule cannot hold."""
    unmet = np.zeros(here.active.shape, bool)
    for r in ruleset.pins:
        rule = ruleset.rules.rules[r]
        assert isinstance(rule, Pin)
        asked = here.active[r] & (rule.position <= here.shown)
        if asked.any():
            unmet[r] = asked & ~slots.put(asked, board.match[r], here.shown, rule.position - 1)
    for r in ruleset.includes:
        assert isinstance(ruleset.rules.rules[r], Include)
        asked = here.active[r] & (slots.standing(board.match[r], here.width[r]) == 0)
        if asked.any():
            unmet[r] = asked & ~slots.put(asked, board.match[r], here.width[r])
    for r in ruleset.quotas:
        unmet[r] = _fill_quota(here, board, slots, r, least[r], most[r])
        unmet[r] &= ruleset.quota(r).per == "slate"  # of the day: there are other slates to make up for it
    return unmet


def _fill_quota(
    here: Situation, board: _Board, slots: Slots, r: int, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    mine, width = board.match[r], here.width[r]
    unmet = np.zeros(len(least), bool)
    if least.any():
        lacking = least - slots.standing(mine, width)
        for step in range(int(lacking.max(initial=0))):
            asked = lacking > step
            unmet |= asked & ~slots.put(asked, mine, width)
    held = here.active[r] & (most < width)
    if held.any() and ((mine & board.allowed).sum(axis=1) > most)[held].any():
        barred = slots.surplus(mine, np.where(held, most, mine.shape[1]), here.shown)
        board.allowed = board.allowed & ~barred
        slots.value[barred] = -np.inf
        unmet |= held & ((mine & board.allowed).sum(axis=1) > most)
    return unmet
