"""Metrics of relevance, one value per request, vectorized over requests; each is defined in `DEFINITIONS`.

Lists are items (B, n) int32, best first, padded with -1. A repeated item counts at its first place only.
Gains are linear: the grade of an item is the event weight in the config. With binary grades this equals the exponential
form, and in general `sklearn.metrics.ndcg_score`.
A request without relevant items gives NaN and is left out of means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import Ragged


@dataclass(frozen=True, slots=True)
class Relevant:
    """The relevant items of B requests, distinct within a row, and their grades (> 0)."""

    item: Ragged  # (B, *) int32
    grade: Ragged  # (B, *) float32, same offsets as item

    def __post_init__(self) -> None:
        if not np.array_equal(self.item.offsets, self.grade.offsets):
            raise ValueError("Relevant: item and grade must have the same offsets; build both from the same rows")
        if len(self.grade.values) and not (self.grade.values > 0).all():
            raise ValueError("Relevant: grades must be > 0; leave out what is not relevant")

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray | slice) -> Relevant:
        return Relevant(self.item.take(rows), self.grade.take(rows))

    def where(self, mask: np.ndarray) -> Relevant:
        """Keep the relevant items whose mask (N,) is true; rows may become empty."""
        return Relevant(self.item.where(mask), self.grade.where(mask))


def gains(items: np.ndarray, relevant: Relevant) -> np.ndarray:
    """Return (B, n) float64: the grade of the item at each place, 0 if it is not relevant or a repetition."""
    values = relevant.item.values.astype(np.int64)
    if not len(values) or not items.size:
        return np.zeros(items.shape)
    span = max(int(values.max()), int(items.max())) + 1
    keys = relevant.item.row_of_value * span + values  # one number per (request, item)
    order = np.argsort(keys)
    keys = keys[order]
    wanted = (np.arange(len(items))[:, None] * span + items).ravel()
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    at = np.flatnonzero((items.ravel() >= 0) & (keys[place] == wanted))
    at = at[np.unique(wanted[at], return_index=True)[1]]  # first place of each
    out = np.zeros(items.size)
    out[at] = relevant.grade.values[order[place[at]]]
    return out.reshape(items.shape)


def recall(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """Return (B,): share of the relevant items that are in the first k places."""
    return _divide((gain[:, :k] > 0).sum(axis=1), relevant.item.lengths)


def ndcg(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """Return (B,): discounted gain of the first k places, divided by that of the best possible order."""
    first = gain[:, :k]
    return _divide(first @ _discount(np.arange(first.shape[1])), _ideal_gain(relevant, k))


def mrr(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """Return (B,): 1 / place of the first relevant item, 0 if there is none in the first k places."""
    hit = gain[:, :k] > 0
    first = np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1) if hit.shape[1] else 0.0, 0.0)
    return np.where(relevant.item.lengths > 0, first, np.nan)


def hit_rate(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """Return (B,): 1 if any of the first k items is relevant, else 0."""
    return np.where(relevant.item.lengths > 0, (gain[:, :k] > 0).any(axis=1).astype(float), np.nan)


def mean_known(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ideal_gain(relevant: Relevant, k: int) -> np.ndarray:
    """Return (B,): discounted gain of the k highest grades in descending order."""
    row, grade = relevant.item.row_of_value, relevant.grade.values
    order = np.lexsort((-grade, row))
    place = np.arange(len(row)) - relevant.item.offsets[row]  # rows are contiguous, so sorting keeps the offsets
    gain = np.where(place < k, grade[order] * _discount(place), 0.0)
    return np.bincount(row, weights=gain, minlength=len(relevant))


def _discount(place: np.ndarray) -> np.ndarray:
    return 1.0 / np.log2(place + 2.0)


def _divide(value: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return value / by (B,), NaN where `by` is 0."""
    return np.divide(value, by, out=np.full(len(value), np.nan), where=by > 0)


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a metric, for the report. `source` is a key into docs/references.bib."""

    meaning: str
    range: str
    better: str  # "higher", "lower" or "neither"
    source: str


DEFINITIONS = {
    "ndcg": Definition(
        "discounted gain of the first k places / the best possible; gain = grade (linear), discount = 1/log2(place+1)",
        "0 to 1", "higher", "jarvelin2002ndcg",
    ),
    "recall": Definition(
        "share of a request's relevant items found in the first k places", "0 to 1", "higher", "herlocker2004evaluating"
    ),
    "mrr": Definition(
        "1 / place of the first relevant item, 0 if it is not in the first k", "0 to 1", "higher", "voorhees1999trec8"
    ),
    "hit_rate": Definition(
        "share of requests with a relevant item in the first k", "0 to 1", "higher", "deshpande2004itemtopn"
    ),
    "coverage": Definition(
        "share of the recommendable catalog that appears in any list; grows with the number of requests",
        "0 to 1", "higher", "ge2010beyond",
    ),
    "diversity": Definition(
        "1 − mean cosine of the tags over all pairs of a list; an item without tags differs from everything",
        "0 to 1", "neither", "ziegler2005improving",
    ),
    "novelty": Definition(
        "mean self-information −log2 p(item) in bits; p from the events in the fit window plus one per item",
        "0 upwards", "neither", "vargas2011rank",
    ),
    "serendipity": Definition(
        "share of a list that is relevant and not in the popularity list of the same length for the same request",
        "0 to 1", "higher", "ge2010beyond",
    ),
    "calibration_error": Definition(
        "KL(p ‖ 0.99 q + 0.01 p) in nats; p = tag shares of the history's positive events, q = of the list; 0 if equal",
        "0 to 4.61", "lower", "steck2018calibrated",
    ),
    "creator_coverage": Definition(
        "share of the creators with a recommendable item who appear in any list; grows with the number of requests",
        "0 to 1", "higher", "ge2010beyond",
    ),
    "small_creators": Definition(
        "share of a list by small creators: the smallest, who together have 20 % of the events in the fit window",
        "0 to 1", "neither", "abdollahpouri2019popularity",
    ),
    "drift": Definition(
        "entropy (bits) of the tags shown in the later half of a user's requests − in the earlier half",
        "−log2(tags) to log2(tags)", "neither", "nguyen2014filter",
    ),
    "repeat_rate": Definition(
        "share of a list that was also in the same user's previous list", "0 to 1", "neither", "lathia2010temporal"
    ),
    "gini": Definition(
        "inequality of exposure over the recommendable catalog: 0 = all items shown equally often, 1 = one item only",
        "0 to 1", "lower", "fleder2009blockbuster",
    ),
}  # fmt: skip
