"""Labeled examples for the ranker: the candidates of past requests, and the user's interactions after them.

Positives that retrieval missed are not added, since their missing source scores would leak the label. Groups without a
positive are dropped and counted. Whether a negative is kept depends only on request, item and seed, so that the
examples do not depend on how requests are divided into shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handsell.core.batches import NONE, Candidates, Ragged, Requests
from handsell.core.hashing import mix

HIGHEST_LABEL = 4
HISTORY_LABEL = -1  # of rows that are the user's latest items, for rankers that read them


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Interactions after each of B requests, as parallel ragged rows."""

    item: Ragged  # items with an interaction
    grade: Ragged  # float32 sums of event weights; ≤ 0 for skips and dislikes

    @classmethod
    def empty(cls, rows: int) -> Outcomes:
        return cls(Ragged.empty(rows), Ragged.empty(rows, np.float32))


@dataclass(frozen=True, slots=True)
class ShownItems:
    """Items shown after each of B requests, by the logging policy."""

    item: Ragged
    position: Ragged  # 1 = top; 0 = unknown
    propensity: Ragged  # float32, probability under the logging policy; NaN = unknown

    @classmethod
    def empty(cls, rows: int) -> ShownItems:
        return cls(Ragged.empty(rows), Ragged.empty(rows, np.int16), Ragged.empty(rows, np.float32))


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share of positives that retrieval found, which bounds the recall of the funnel."""

    requests: int = 0
    groups: int = 0  # requests with a positive among their candidates
    positives: int = 0  # distinct (request, item) pairs with a positive interaction
    found: int = 0  # positives among the candidates
    ignored: int = 0  # shown candidates without interaction that are kept as negatives

    @property
    def recall_ceiling(self) -> float:
        return self.found / self.positives if self.positives else 0.0

    def __add__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.requests + other.requests,
            self.groups + other.groups,
            self.positives + other.positives,
            self.found + other.found,
            self.ignored + other.ignored,
        )


@dataclass(frozen=True, slots=True)
class Examples:
    """N labeled candidates; the rows of a group (a request) are adjacent."""

    qid: np.ndarray  # (N,) int64, see `hash_requests`
    item: np.ndarray  # (N,) int32
    label: np.ndarray  # (N,) int8, 0..HIGHEST_LABEL, or HISTORY_LABEL
    weight: np.ndarray  # (N,) float32, number of candidates that the row represents (1 / probability of being kept)
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
    propensity_cap: float = 10.0,
) -> Examples:
    """Return the kept candidates of B requests with labels and features.

    - Positives: all, with label = round(sum of event weights) within 1..HIGHEST_LABEL.
    - Candidates with a sum ≤ 0: all, with label 0.
    - Shown candidates without interaction: label 0, kept with the probability `compute_keep_chance`. XGBoost's ranking
      weights are per group, so that the correction for the logging policy is made by sampling.
    - Other candidates: label 0, up to `negatives` per request, drawn uniformly, since a preference for those of good
    source
      ranks would teach that a good rank does not matter (docs/decisions/004).

    `matrix` is called with the kept candidates only.
    """
    qid = hash_requests(requests)
    real = candidates.item != NONE
    grade, acted = _look_up(candidates.item, outcomes.item, outcomes.grade.values)
    positive = real & acted & (grade > 0)
    groups = positive.any(axis=1)
    draw = draw_uniform(qid, candidates.item, seed)  # (B, K) uniform

    chance, was_shown = _look_up(candidates.item, shown.item, compute_keep_chance(shown, propensity_cap), np.maximum)
    ignored = real & was_shown & ~acted
    drawn, stands_for = _sample_negatives(real & ~was_shown & ~acted, draw, negatives)

    keep = ((real & acted) | (ignored & (draw < chance)) | drawn) & groups[:, None]
    weight = np.where(ignored, 1 / np.maximum(chance, 1 / propensity_cap), np.where(drawn, stands_for, 1.0))
    label = np.where(positive, np.clip(np.rint(grade), 1, HIGHEST_LABEL), 0)
    row, column = np.nonzero(keep)
    return Examples(
        qid=qid[row],
        item=candidates.item[row, column],
        label=label[row, column].astype(np.int8),
        weight=weight[row, column].astype(np.float32),
        x=_build_features(requests, candidates, keep, groups, matrix),
        coverage=Coverage(
            len(requests),
            int(groups.sum()),
            _count_positives(outcomes),
            int(positive.sum()),
            int((ignored & keep).sum()),
        ),
    )


def append_history(
    examples: Examples, requests: Requests, items: int, sources: tuple[str, ...], matrix: Matrix
) -> Examples:
    """Append the latest `items` of each request that has examples, as rows with HISTORY_LABEL after all candidates.

    Their features are those of a candidate that no source returned; `weight` is that of the event.
    """
    qid = hash_requests(requests)
    asked = np.isin(qid, examples.qid)
    some, qid = requests.take(asked), qid[asked]
    found = list_history(some, items, sources)
    row, column = np.nonzero(found.item != NONE)
    pick = np.broadcast_to(np.arange(found.item.shape[1]), found.item.shape)
    more = {
        "qid": qid[row],
        "item": found.item[row, column],
        "label": np.full(len(row), HISTORY_LABEL, np.int8),
        "weight": some.history.weight[:, -items:][row, column],
        "x": matrix(some, found, pick)[row, column],
    }
    joined: dict[str, Any] = {name: np.concatenate([getattr(examples, name), rows]) for name, rows in more.items()}
    return replace(examples, **joined)


def list_history(requests: Requests, items: int, sources: tuple[str, ...]) -> Candidates:
    """Return the latest `items` of the history (B, T) as candidates without a source, oldest first."""
    item = requests.history.item[:, -items:]
    unknown = np.full((*item.shape, len(sources)), np.nan, np.float32)
    nothing = np.zeros(item.shape, np.float32)
    return Candidates(item, fused=nothing, source_score=unknown, source_rank=unknown, score=nothing, sources=sources)


def _build_features(
    requests: Requests, candidates: Candidates, keep: np.ndarray, groups: np.ndarray, matrix: Matrix
) -> np.ndarray:
    """Return the features (N, F) of the kept candidates, in the order of np.nonzero(keep)."""
    kept, count = keep[groups], keep.sum(axis=1)[groups]
    widest = int(count.max(initial=0))
    pick = np.argsort(~kept, axis=1, kind="stable")[:, :widest]  # kept columns first, in their order
    x = matrix(requests.take(groups), candidates.take(groups), pick)
    return x[np.arange(widest) < count[:, None]]


def hash_requests(requests: Requests) -> np.ndarray:
    """Return a hash (B,) int64 ≥ 0 of user, time and surface, equal in every run and shard."""
    mixed = mix(mix(requests.user.astype(np.int64).view(np.uint64)) ^ requests.time.view(np.uint64))
    return (mix(mixed ^ requests.surface.astype(np.uint64)) >> np.uint64(1)).view(np.int64)


def draw_uniform(qid: np.ndarray, item: np.ndarray, seed: int) -> np.ndarray:
    """Return uniform numbers (B, K) float64 in [0, 1) that depend only on request, item and seed."""
    key = mix(qid.view(np.uint64) ^ mix(np.array([seed], np.uint64)))[:, None] ^ item.astype(np.int64).view(np.uint64)
    return (mix(key) >> np.uint64(11)) * 2.0**-53


def compute_keep_chance(shown: ShownItems, propensity_cap: float) -> np.ndarray:
    """Return the probability (N,) of keeping a shown item without interaction as a negative.

    It is examination × min(1, median propensity / propensity), at least 1 / propensity_cap. The second factor is a
    clipped inverse propensity, normalized within the request (@schnabel2016recommendations): it keeps fewer of the
    items that the logging policy preferred. Examination is 1 / log2(1 + position), since users may not see items deep
    in the slate.
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
    correction = np.where(known, np.minimum(ratio, 1.0), 1.0)
    return np.maximum(examined * correction, 1 / propensity_cap)


def _sample_negatives(untouched: np.ndarray, draw: np.ndarray, negatives: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw at most `negatives` candidates as a mask (B, K); also return the number (B, 1) that each represents."""
    place = np.argsort(np.argsort(np.where(untouched, draw, 2.0), axis=1, kind="stable"), axis=1, kind="stable")
    drawn = untouched & (place < negatives)
    return drawn, untouched.sum(axis=1, keepdims=True) / np.maximum(drawn.sum(axis=1, keepdims=True), 1)


def _look_up(items: np.ndarray, rows: Ragged, values: np.ndarray, merge: np.ufunc = np.add):
    """Return the value of each item in its row of `rows` (B, K), 0 where absent, and whether it is present (B, K)."""
    out, found = np.zeros(items.shape), np.zeros(items.shape, bool)
    for b in np.flatnonzero(rows.lengths):
        mine = slice(rows.offsets[b], rows.offsets[b + 1])
        unique, merged = _merge_values(rows.values[mine], values[mine], merge)
        at = np.minimum(np.searchsorted(unique, items[b]), len(unique) - 1)
        found[b] = (unique[at] == items[b]) & (items[b] != NONE)
        out[b] = np.where(found[b], merged[at], 0.0)
    return out, found


def _merge_values(keys: np.ndarray, values: np.ndarray, merge: np.ufunc) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct keys, ascending, and their merged values; needs at least one key."""
    order = np.argsort(keys, kind="stable")
    unique, start = np.unique(keys[order], return_index=True)
    return unique, merge.reduceat(values[order].astype(np.float64), start)


def _count_positives(outcomes: Outcomes) -> int:
    """Count distinct (request, item) pairs with a positive sum."""
    row, item = outcomes.item.row_of_value.astype(np.int64), outcomes.item.values.astype(np.int64)
    if not len(item):
        return 0
    return int((_merge_values(row << np.int64(32) | item, outcomes.grade.values, np.add)[1] > 0).sum())
