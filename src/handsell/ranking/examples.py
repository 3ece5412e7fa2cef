"""Labeled examples for the ranker: what retrieval found for past requests, and what the user then did.

Rules (DESIGN §4): a positive that retrieval missed is never injected, since its missing source scores
would leak the label; a group without a positive teaches an order nothing and is dropped, and counted.
Which negatives are kept is a function of (request, item, seed) alone, so that any cut of the requests
into shards gives the same examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from handsell.core.batches import NONE, Candidates, Ragged, Requests
from handsell.core.hashing import mix

HIGHEST_LABEL = 4  # XGBoost's exponential gain: 2**4 - 1 = 15 times a plain positive
LOWEST_KEEP = 0.1  # no shown negative is kept with less than this chance: bounds its weight at 10


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What followed each of B requests: parallel ragged rows."""

    item: Ragged  # items the user acted on
    grade: Ragged  # float32 sums of event weights; ≤ 0 is a refusal (skip, dislike)

    @classmethod
    def empty(cls, rows: int) -> Outcomes:
        return cls(Ragged.empty(rows), Ragged.empty(rows, np.float32))


@dataclass(frozen=True, slots=True)
class ShownItems:
    """What each of B requests was shown, by the policy that ran then."""

    item: Ragged
    position: Ragged  # 1 = top; 0 = unknown
    propensity: Ragged  # float32, chance that the policy put it there; NaN = unknown

    @classmethod
    def empty(cls, rows: int) -> ShownItems:
        return cls(Ragged.empty(rows), Ragged.empty(rows, np.int16), Ragged.empty(rows, np.float32))


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what users wanted the ranker gets to see: the recall ceiling of the whole funnel."""

    requests: int = 0
    groups: int = 0  # requests with a positive among their candidates
    positives: int = 0  # distinct (request, item) pairs that the user acted on
    found: int = 0  # of these, retrieved

    @property
    def recall_ceiling(self) -> float:
        return self.found / self.positives if self.positives else 0.0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.requests + other.requests,
            self.groups + other.groups,
            self.positives + other.positives,
            self.found + other.found,
        )


@dataclass(frozen=True, slots=True)
class Examples:
    """N labeled candidates; the rows of a group (one request) are together."""

    qid: np.ndarray  # (N,) int64, see `hash_requests`
    item: np.ndarray  # (N,) int32
    label: np.ndarray  # (N,) int8, 0..HIGHEST_LABEL
    weight: np.ndarray  # (N,) float32, how many candidates the row stands for (1 / chance of being kept)
    x: np.ndarray  # (N, F) float32
    coverage: Coverage = Coverage()

    def __len__(self) -> int:
        return len(self.qid)


Matrix = Callable[[Requests, Candidates, np.ndarray], np.ndarray]  # (requests, candidates, pick (B, k)) → (B, k, F)


def label_examples(
    requests: Requests,
    candidates: Candidates,
    outcomes: Outcomes,
    shown: ShownItems,
    matrix: Matrix,
    *,
    negatives: int,
    seed: int,
) -> Examples:
    """Kept candidates of B requests with labels and features; `matrix` is called for the kept ones only.

    - positives: every candidate that the user acted on, label = round(sum of event weights) within 1..4;
    - refused: every candidate with a sum ≤ 0, label 0;
    - shown and ignored: label 0, kept with the chance of `compute_keep_chance`. Ranking weights of XGBoost
      are per group, so the correction for the logging policy is made by sampling rather than by weight;
    - untouched: up to `negatives`, drawn evenly. Not the best placed ones: kept in full beside a tenth of
      the rest, they teach that a poor place is no worse than a good one (docs/decisions/004).
    """
    qid = hash_requests(requests)
    real = candidates.item != NONE
    grade, acted = _look_up(candidates.item, outcomes.item, outcomes.grade.values)
    positive = real & acted & (grade > 0)
    groups = positive.any(axis=1)
    draw = draw_uniform(qid, candidates.item, seed)  # (B, K) uniform

    chance, was_shown = _look_up(candidates.item, shown.item, compute_keep_chance(shown), np.maximum)
    ignored = real & was_shown & ~acted
    drawn, stands_for = _sample_negatives(real & ~was_shown & ~acted, draw, negatives)

    keep = ((real & acted) | (ignored & (draw < chance)) | drawn) & groups[:, None]
    weight = np.where(ignored, 1 / np.maximum(chance, LOWEST_KEEP), np.where(drawn, stands_for, 1.0))
    label = np.where(positive, np.clip(np.rint(grade), 1, HIGHEST_LABEL), 0)
    row, column = np.nonzero(keep)
    return Examples(
        qid=qid[row],
        item=candidates.item[row, column],
        label=label[row, column].astype(np.int8),
        weight=weight[row, column].astype(np.float32),
        x=_build_features(requests, candidates, keep, groups, matrix),
        coverage=Coverage(len(requests), int(groups.sum()), _count_positives(outcomes), int(positive.sum())),
    )


def _build_features(
    requests: Requests, candidates: Candidates, keep: np.ndarray, groups: np.ndarray, matrix: Matrix
) -> np.ndarray:
    """(N, F) rows of the kept candidates, in the order of np.nonzero(keep)."""
    kept, count = keep[groups], keep.sum(axis=1)[groups]
    widest = int(count.max(initial=0))
    pick = np.argsort(~kept, axis=1, kind="stable")[:, :widest]  # kept columns first, in their order
    x = matrix(requests.take(groups), candidates.take(groups), pick)
    return x[np.arange(widest) < count[:, None]]


def hash_requests(requests: Requests) -> np.ndarray:
    """(B,) int64 ≥ 0: the same request has the same number in every run and shard."""
    mixed = mix(mix(requests.user.astype(np.int64).view(np.uint64)) ^ requests.time.view(np.uint64))
    return (mix(mixed ^ requests.surface.astype(np.uint64)) >> np.uint64(1)).view(np.int64)


def draw_uniform(qid: np.ndarray, item: np.ndarray, seed: int) -> np.ndarray:
    """(B, K) float64 in [0, 1): a uniform draw for each (request, item), the same in every shard."""
    key = mix(qid.view(np.uint64) ^ mix(np.array([seed], np.uint64)))[:, None] ^ item.astype(np.int64).view(np.uint64)
    return (mix(key) >> np.uint64(11)) * 2.0**-53


def compute_keep_chance(shown: ShownItems) -> np.ndarray:
    """(N,) chance of keeping a shown and ignored item as a negative.

    It is examination × min(1, median propensity / propensity): what the logging policy loved to show is
    kept less often, so that the negatives do not merely mirror that policy (clipped inverse propensity,
    normalized within the request; @schnabel2016recommendations); and an item deep in the slate, which
    may never have been looked at, is kept with 1 / log2(1 + position). Never below LOWEST_KEEP.
    """
    position = np.maximum(shown.position.values.astype(float), 1)
    examined = 1 / np.log2(1 + position)
    propensity = shown.propensity.values.astype(float)
    known = np.isfinite(propensity) & (propensity > 0)
    median = np.ones(len(shown.item))
    for b in range(len(shown.item)):
        mine = slice(shown.item.offsets[b], shown.item.offsets[b + 1])
        if known[mine].any():
            median[b] = np.median(propensity[mine][known[mine]])
    ratio = median[shown.item.row_of_value] / np.where(known, propensity, np.inf)
    unloved = np.where(known, np.minimum(ratio, 1.0), 1.0)
    return np.maximum(examined * unloved, LOWEST_KEEP)


def _sample_negatives(untouched: np.ndarray, draw: np.ndarray, negatives: int) -> tuple[np.ndarray, np.ndarray]:
    """(B, K) mask of at most `negatives` drawn evenly, and (B, 1) how many each of them stands for."""
    place = np.argsort(np.argsort(np.where(untouched, draw, 2.0), axis=1, kind="stable"), axis=1, kind="stable")
    drawn = untouched & (place < negatives)
    return drawn, untouched.sum(axis=1, keepdims=True) / np.maximum(drawn.sum(axis=1, keepdims=True), 1)


def _look_up(items: np.ndarray, rows: Ragged, values: np.ndarray, merge: np.ufunc = np.add):
    """(B, K) value of each item in its row of `rows`, 0 where absent, and (B, K) bool whether it is there."""
    out, found = np.zeros(items.shape), np.zeros(items.shape, bool)
    for b in np.flatnonzero(rows.lengths):
        mine = slice(rows.offsets[b], rows.offsets[b + 1])
        unique, merged = _merge_values(rows.values[mine], values[mine], merge)
        at = np.minimum(np.searchsorted(unique, items[b]), len(unique) - 1)
        found[b] = (unique[at] == items[b]) & (items[b] != NONE)
        out[b] = np.where(found[b], merged[at], 0.0)
    return out, found


def _merge_values(keys: np.ndarray, values: np.ndarray, merge: np.ufunc) -> tuple[np.ndarray, np.ndarray]:
    """Distinct keys (at least one is given), ascending, and their values merged."""
    order = np.argsort(keys, kind="stable")
    unique, start = np.unique(keys[order], return_index=True)
    return unique, merge.reduceat(values[order].astype(np.float64), start)


def _count_positives(outcomes: Outcomes) -> int:
    """Distinct (request, item) pairs with a positive sum."""
    row, item = outcomes.item.row_of_value.astype(np.int64), outcomes.item.values.astype(np.int64)
    if not len(item):
        return 0
    return int((_merge_values(row << np.int64(32) | item, outcomes.grade.values, np.add)[1] > 0).sum())
