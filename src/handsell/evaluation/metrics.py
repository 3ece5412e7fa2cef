"""Metrics of relevance, one value per request, vectorized over requests; each is defined in `DEFINITIONS`.

Lists are items (B, n) int32, best first, padded with -1. A repeated item counts at its first place only.
Gains are linear: a grade is the event weight that the config states, so it means what it says; on binary
grades this equals the exponential form, and it equals `sklearn.metrics.ndcg_score`.
A request with nothing relevant gives NaN: it is no evidence, and means leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import Ragged


@dataclass(frozen=True, slots=True)
class Relevant:
    """What each of B requests should have found: distinct items and their grades (> 0), row by row."""

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
        """Only the relevant items with mask (N,) true; rows stay, some may become empty."""
        return Relevant(self.item.where(mask), self.grade.where(mask))


def gains(items: np.ndarray, relevant: Relevant) -> np.ndarray:
    """(B, n) float64: the grade of the item at each place, 0 where it is not relevant or was already listed."""
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
    """(B,) share of the relevant items that stand in the first k places."""
    return _known((gain[:, :k] > 0).sum(axis=1), relevant.item.lengths)


def ndcg(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """(B,) discounted gain of the first k places over that of the best possible order."""
    shown = gain[:, :k]
    got = shown @ _discount(np.arange(shown.shape[1]))
    return _known(got, _ideal(relevant, k))


def mrr(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """(B,) 1 / place of the first relevant item within k, 0 where there is none."""
    hit = gain[:, :k] > 0
    first = np.where(hit.any(axis=1), 1.0 / (hit.argmax(axis=1) + 1) if hit.shape[1] else 0.0, 0.0)
    return np.where(relevant.item.lengths > 0, first, np.nan)


def hit_rate(gain: np.ndarray, relevant: Relevant, k: int) -> np.ndarray:
    """(B,) 1 where any of the first k is relevant."""
    return np.where(relevant.item.lengths > 0, (gain[:, :k] > 0).any(axis=1).astype(float), np.nan)


def mean_known(values: np.ndarray) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ideal(relevant: Relevant, k: int) -> np.ndarray:
    """(B,) discounted gain of the k highest grades in falling order."""
    row, grade = relevant.item.row_of_value, relevant.grade.values
    order = np.lexsort((-grade, row))
    place = np.arange(len(row)) - relevant.item.offsets[row]  # rows are contiguous, so sorting keeps the offsets
    worth = np.where(place < k, grade[order] * _discount(place), 0.0)
    return np.bincount(row, weights=worth, minlength=len(relevant))


def _discount(place: np.ndarray) -> np.ndarray:
    return 1.0 / np.log2(place + 2.0)


def _known(value: np.ndarray, out_of: np.ndarray) -> np.ndarray:
    """value / out_of, NaN where out_of is 0."""
    return np.divide(value, out_of, out=np.full(len(value), np.nan), where=out_of > 0)


@dataclass(frozen=True, slots=True)
class Definition:
    """What a number in the report means. `source` is a key into docs/references.bib."""

    meaning: str
    range: str
    better: str  # "higher", "lower" or "neither"
    source: str


DEFINITIONS = {
    "ndcg": Definition(
        "discounted gain of the first k places over the best possible; gain = grade (linear), discount 1/log2(place+1)",
        "0 to 1", "higher", "jarvelin2002ndcg",
    ),
    "recall": Definition(
        "share of a request's relevant items found in the first k places", "0 to 1", "higher", "herlocker2004evaluating"
    ),
    "mrr": Definition("1 / place of the first relevant item, 0 beyond k", "0 to 1", "higher", "voorhees1999trec8"),
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
        "mean self-information −log2 p(item) in bits, p from events in the fit window with one added to each item",
        "0 upwards", "neither", "vargas2011rank",
    ),
    "serendipity": Definition(
        "share of a list that is relevant and not in the popularity list of the same length for the same request",
        "0 to 1", "higher", "ge2010beyond",
    ),
    "calibration_error": Definition(
        "KL(p ‖ 0.99 q + 0.01 p) in nats: p the mix of the history's tags (positive events), q the list's; 0: the same",
        "0 to 4.61", "lower", "steck2018calibrated",
    ),
    "creator_coverage": Definition(
        "share of the recommendable catalog's creators who appear in any list; grows with the number of requests",
        "0 to 1", "higher", "ge2010beyond",
    ),
    "small_creators": Definition(
        "share of a list by small creators: the smallest who together have a fifth of the events in the fit window",
        "0 to 1", "neither", "abdollahpouri2019popularity",
    ),
    "drift": Definition(
        "entropy (bits) of the tags shown in the later half of a user's requests − in the earlier; below 0: narrowing",
        "−log2(tags) to log2(tags)", "neither", "nguyen2014filter",
    ),
    "repeat_rate": Definition(
        "share of a list that stood in the same user's list just before", "0 to 1", "neither", "lathia2010temporal"
    ),
    "gini": Definition(
        "inequality of exposure over the recommendable catalog: 0 = all items shown equally often, 1 = one item only",
        "0 to 1", "lower", "fleder2009blockbuster",
    ),
}  # fmt: skip
