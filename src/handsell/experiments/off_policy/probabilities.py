"""The probability with which a policy shows given items at given positions of a request.

A policy is a funnel with its re-ranking. Without exploration its slate is certain. With exploration, a position's item
depends on what was drawn above it: the slate is drawn with several seeds, and the exact probabilities given the
positions above are averaged over the draws.

For the policy that logged the slates, the first seed is the logged one. The mean over R such draws in the denominator
is multiple importance sampling with the balance heuristic (@elvira2019generalized): the estimate is unbiased for any R,
as far as one of the R draws could have shown the item. With R = 1 it is the logged propensity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from handsell.bundles.stages import Stages
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.funnel import run_local
from handsell.core.hashing import mix
from handsell.reranking.exploration import Draw, Exploration
from handsell.reranking.stage import LocalReranking

CHUNK = 64  # requests of one batch


@dataclass(frozen=True, slots=True)
class PolicySlates:
    """R draws of N slates of n positions."""

    item: np.ndarray  # (R, N, n) int32
    score: np.ndarray  # (R, N, n) float32
    chance: np.ndarray  # (R, N, n, m) float64, probability of each given item at this position, given the draw above it
    given_score: np.ndarray  # (N, n, m) float32 of the given items, NaN for those that ranking did not pass on

    @property
    def probability(self) -> np.ndarray:
        """(N, n) mean probability of the first given item over the draws."""
        return self.chance[..., 0].mean(axis=0)


@dataclass(frozen=True, slots=True)
class _WatchedExploration(Exploration):
    """Draws like another exploration, and keeps the probabilities of m columns per request and position."""

    column: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.int64))  # (B, n, m), -1: not a candidate
    chance: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))  # (B, n, m), written here

    def draw(self, position: int, *state: np.ndarray | float | None) -> Draw:
        if position < self.column.shape[1]:
            every = self.compute_chances(*state)  # type: ignore[arg-type]
            every = every / every.sum(axis=1, keepdims=True)
            column = self.column[:, position]
            found = np.take_along_axis(every, np.maximum(column, 0), 1)
            self.chance[:, position] = np.where(column == NONE, 0.0, found)
        return Exploration.draw(self, position, *state)  # type: ignore[arg-type]


class TargetWatch:
    """Watches the probabilities of m items at each position, (B, n, m)."""

    def __init__(self, items: np.ndarray):
        self.items, self.chance = items, np.full(items.shape, np.nan)

    def __call__(self, exploration: Exploration, candidates: np.ndarray) -> Exploration:
        column = find_columns(self.items, candidates)
        known = {f.name: getattr(exploration, f.name) for f in fields(exploration)}
        return _WatchedExploration(**known, column=column, chance=self.chance)

    def read(self, slates: Slates) -> np.ndarray:
        """Return (B, n, m) probabilities of the items; a position of propensity 1 shows its item for certain."""
        certain = (slates.item[:, :, None] == self.items) & (self.items != NONE)
        drawn = (slates.propensity < 1)[:, :, None] & np.isfinite(self.chance)
        return np.where(drawn, self.chance, certain)


def find_columns(items: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return (B, n, m) the column of each of items (B, n, m) in candidates (B, K); -1 for none."""
    same = (candidates[:, None, None, :] == items[..., None]) & (items != NONE)[..., None]
    return np.where(same.any(axis=3), same.argmax(axis=3), NONE)


def draw_slates(stages: Stages, requests: Requests, items: np.ndarray, seeds: np.ndarray) -> PolicySlates:
    """Draw slates with seeds (N, R), and compute the probabilities of m items at each position, `items` (N, n, m).

    Without exploration one draw is made. Raises HandsellError as the stages do.
    """
    assert isinstance(stages.reranking, LocalReranking)
    draws = seeds.shape[1] if stages.reranking.settings.exploration.share else 1
    parts = [
        _draw_chunk(stages, requests.take(rows), items[rows], seeds[rows, :draws])
        for rows in (slice(at, at + CHUNK) for at in range(0, len(requests), CHUNK))
    ]
    return PolicySlates(
        item=np.concatenate([part.item for part in parts], axis=1),
        score=np.concatenate([part.score for part in parts], axis=1),
        chance=np.concatenate([part.chance for part in parts], axis=1),
        given_score=np.concatenate([part.given_score for part in parts]),
    )


def _draw_chunk(stages: Stages, requests: Requests, items: np.ndarray, seeds: np.ndarray) -> PolicySlates:
    funnel, n = stages.funnel, items.shape[1]
    assert isinstance(stages.reranking, LocalReranking)
    reranking = stages.reranking.without_counting
    found = run_local(funnel.candidates.candidates(requests, funnel.k))
    ranked = run_local(funnel.ranking.rank(requests, found, max(funnel.ranked, n)))
    slates, chances = [], []
    for seed in seeds.T:
        watch = TargetWatch(items)
        drawn = run_local(replace(reranking, watch=watch).rerank(replace(requests, seed=seed), ranked, n))
        slates.append(drawn)
        chances.append(watch.read(drawn))
    column = find_columns(items, ranked.item)
    score = ranked.score[np.arange(len(column))[:, None, None], np.maximum(column, 0)]
    score = np.where(column == NONE, np.nan, score)
    return PolicySlates(_stack(slates, "item"), _stack(slates, "score"), np.stack(chances), score)


def _stack(slates: Sequence[Slates], name: str) -> np.ndarray:
    return np.stack([getattr(one, name) for one in slates])


def derive_draw_seeds(seed: np.ndarray, draws: int) -> np.ndarray:
    """Return (N, draws) uint64: the logged seed (N,), then others derived from it."""
    found = [seed]
    for _ in range(draws - 1):
        found.append(mix(found[-1]))
    return np.stack(found, axis=1)


def combine_propensities(logged: np.ndarray, redrawn: PolicySlates, is_same: np.ndarray) -> np.ndarray:
    """Return the log's probability of each shown item (N, n): the mean of the logged one and those of further draws.

    The first draw of `redrawn` stands for the log; further ones count for slates that it reproduces, is_same (N,) bool.
    """
    draws = len(redrawn.chance)
    if draws == 1:
        return logged
    mean = (logged + redrawn.chance[1:, ..., 0].sum(axis=0)) / draws
    return np.where(is_same[:, None], mean, logged)
