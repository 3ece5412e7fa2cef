"""The ranking transformer: each candidate attends to the other candidates of its request and to the user's history.

A row of features is embedded by piecewise linear tables, one per feature (@gorishniy2022embeddings); a small network
mixes them. One layer of attention (@vaswani2017attention, over sets without positions as @lee2019set) reads the other
rows, and a second network gives the score, to which a multiple of the fused score is added. Trees score a row from its
own features alone; the transformer sees how it compares with the list.

Serving needs NumPy only. The training is in `handsell.ranking.neural`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from handsell.core.errors import BundleError
from handsell.core.kernels import compiled
from handsell.ranking.calibrated_ranker import CalibratedRanker
from handsell.ranking.calibration import Calibration
from handsell.ranking.examples import HISTORY_LABEL
from handsell.ranking.lists import ListContext, Lists
from handsell.ranking.shapley import sample_contributions
from handsell.ranking.shards import RankingExamples
from handsell.ranking.xgboost_ranker import FUSED, WITHOUT_EVENTS, compute_fused_margin

WEIGHTS = "transformer.safetensors"
HEADS = 2
EPSILON = 1e-5
LARGEST = np.float32(1e18)  # so that no product with the inverse of a width overflows
LEAST_WIDTH = 1e-12  # of a segment


@dataclass(frozen=True)
class TransformerRanker(CalibratedRanker):
    """A `Ranker` that reads lists. Each request is computed on its own, so that a batch does not change its scores."""

    features: tuple[str, ...]
    weights: Mapping[str, np.ndarray]  # float32, see `handsell.ranking.neural.network`
    calibration: Calibration
    prior: float = 0.0  # multiple of FUSED that is added to the score
    history_items: int = 0
    ranks_without_events: bool = False

    def raw(
        self, x: np.ndarray, trees: int = 0, use: np.ndarray | None = None, lists: Lists | None = None
    ) -> np.ndarray:
        """Return raw scores (B, K) float32 of features (B, K, F), NaN where `use` (B, K) is false.

        With `trees`, a fast preselection is wanted: the fused score, or the order of the candidates where it is no
        feature. Without `lists`, all rows are candidates and there is no history.
        """
        if x.shape[2] != len(self.features):
            raise BundleError(
                f"the ranker expects {len(self.features)} features, got {x.shape[2]} columns: "
                "build the matrix with the names in features.json"
            )
        use = np.ones(x.shape[:2], bool) if use is None else use
        if trees:
            order = -np.arange(x.shape[1], dtype=np.float32)
            rough = np.nan_to_num(x[:, :, self.features.index(FUSED)]) if FUSED in self.features else order
            return np.where(use, rough, np.float32(np.nan))
        lists = lists or Lists.without_history(use, x.shape[2])
        out = np.full(x.shape[:2], np.nan, np.float32)
        for b in range(len(x)):
            asked = np.flatnonzero(use[b])
            if len(asked):
                out[b, asked] = self._score_list(x[b], asked, lists.row(b))
        return out

    def contributions_in_list(self, x: np.ndarray, row: int, lists: Lists) -> tuple[np.ndarray, float]:
        """Return the contribution (F,) float32 of each feature of one row of a request's x (K, F), and the base score.

        Only the row changes, not what it attends to. With the base they sum to `raw` (see `sample_contributions`).
        """
        context = lists.row(0).without(row)

        def score(variants: np.ndarray) -> np.ndarray:
            asked = np.arange(len(x), len(x) + len(variants))
            return self._score_list(np.concatenate([x, variants]), asked, context)

        return sample_contributions(x[row], score)

    def score_examples(self, rows: RankingExamples) -> np.ndarray:
        """Return raw scores (N,) float32 of examples with history, sorted by group; NaN for the history."""
        out = np.full(len(rows), np.nan, np.float32)
        begin = np.append(np.flatnonzero(np.diff(rows.qid, prepend=-1)), len(rows))
        for mine in map(slice, begin[:-1], begin[1:]):
            x, weight, past = rows.x[mine], rows.weight[mine], rows.label[mine] == HISTORY_LABEL
            asked = np.flatnonzero(~past)
            context = ListContext.sample(asked, np.maximum(weight[asked], 1), x[past], weight[past])
            out[mine.start + asked] = self._score_list(x, asked, context)
        return out

    def _score_list(self, x: np.ndarray, asked: np.ndarray, context: ListContext) -> np.ndarray:
        """Return scores of the rows `asked` of x (K, F), which attend to the context."""
        w, rows = self.weights, np.union1d(asked, context.candidate)
        own = self._embed(x[rows])
        past = self._embed(context.history) + w["history"] + context.weight[:, None] * w["history_weight"]
        state = np.concatenate([own, past])
        state += _feed_forward(state, w, "first")
        mine, theirs = np.searchsorted(rows, asked), np.searchsorted(rows, context.candidate)
        others = np.concatenate([theirs, np.arange(len(rows), len(state))])
        bias = np.zeros((HEADS, len(others)), np.float32)
        bias[:, : len(theirs)] = np.log(context.stands_for)
        bias[:, len(theirs) :] = w["history_bias"][:, None]
        found = state[mine]
        found += _attend(_normalize(found), _normalize(state[others]), mine, others, bias, w)
        found += _feed_forward(found, w, "second")
        score = _normalize(found) @ w["score"]
        return score + compute_fused_margin(x[asked], self.features, self.prior)

    def _embed(self, rows: np.ndarray) -> np.ndarray:
        """Return the embeddings (N, D) of rows (N, F)."""
        bias = self.weights["bias"]
        if compiled is not None and len(bias) % 16 == 0 and len(rows) and self.weights["knots"].shape[1] <= 16:
            out = np.empty((len(rows), len(bias)), np.float32)
            bounded = np.clip(np.ascontiguousarray(rows, np.float32), -LARGEST, LARGEST)
            compiled.embed_rows(bounded, *self._tables, bias, out)
            return out
        basis = encode_rows(rows, self._low, self._scale)
        return basis.reshape(len(rows), len(self._table)) @ self._table + bias

    @cached_property
    def _low(self) -> np.ndarray:
        return split_knots(self.weights["knots"])[0]

    @cached_property
    def _scale(self) -> np.ndarray:
        return split_knots(self.weights["knots"])[1]

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the kernel: knots and inverse widths (F, 16), and the values at knots and where missing (F, 18, D)."""
        knots, table = self.weights["knots"], self.weights["table"]
        features, count = knots.shape
        padded, scale = np.full((features, 16), np.inf, np.float32), np.zeros((features, 16), np.float32)
        padded[:, :count], scale[:, : count - 1] = np.where(np.isnan(knots), np.inf, knots), self._scale
        values = np.zeros((features, 18, table.shape[2]), np.float32)
        values[:, 1:count], values[:, 16] = table[:, :-1].cumsum(axis=1), table[:, -1]
        return padded, scale, values

    @cached_property
    def _table(self) -> np.ndarray:
        table = self.weights["table"]
        return np.ascontiguousarray(table.reshape(-1, table.shape[2]))

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the spread of the embeddings, largest first."""
        share = self.weights["importance"].astype(float)
        total = share.sum() or 1.0
        return dict(sorted(zip(self.features, (share / total).tolist(), strict=True), key=lambda pair: -pair[1]))

    def save(self, path: Path) -> None:
        """Save transformer.safetensors, and features, prior, history, without_events and calibration as JSON."""
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(w, np.float32) for name, w in self.weights.items()}, path / WEIGHTS)
        (path / "features.json").write_text(json.dumps(list(self.features), indent=1))
        (path / "prior.json").write_text(json.dumps(self.prior))
        (path / "history.json").write_text(json.dumps(self.history_items))
        (path / WITHOUT_EVENTS).write_text(json.dumps(self.ranks_without_events))
        self.calibration.save(path / "calibration.json")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the ranker; raises BundleError where a file is missing or corrupt, or the files disagree."""
        try:
            features, prior, history, without = (
                json.loads((path / name).read_text())
                for name in ("features.json", "prior.json", "history.json", WITHOUT_EVENTS)
            )
            weights = load_file(path / WEIGHTS)
            agree = len(weights["knots"]) == len(features)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise BundleError(
                f"ranker in {path}: {WEIGHTS} or a file beside it is missing or corrupt ({type(error).__name__}): "
                "roll back, or train again"
            ) from error
        if not agree:
            raise BundleError(
                f"ranker in {path}: {WEIGHTS} has {len(weights['knots'])} features, features.json has "
                f"{len(features)}: they are from different trainings; roll back, or train again"
            )
        calibration = Calibration.load(path / "calibration.json")
        return cls(tuple(features), weights, calibration, float(prior), int(history), bool(without))


def split_knots(knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower ends (F, S) and inverse widths (F, S) of the segments of knots (F, S + 1), padded with NaN."""
    width = np.diff(knots, axis=1)
    real = np.isfinite(width)
    return np.where(real, knots[:, :-1], 0), np.where(real, 1 / np.where(real, width, 1), 0)


def encode_rows(x: np.ndarray, low: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return (N, F, S + 1) float32 of rows (N, F): how much of each segment lies below the value; 1 where missing.

    Values beyond the knots count as the nearest knot.
    """
    missing = np.isnan(x)
    out = np.empty((*x.shape, low.shape[1] + 1), np.float32)
    np.subtract(np.clip(np.where(missing, 0, x), -LARGEST, LARGEST)[:, :, None], low, out=out[:, :, :-1])
    out[:, :, :-1] *= scale
    np.clip(out[:, :, :-1], 0, 1, out=out[:, :, :-1])
    out[:, :, :-1][missing] = 0
    out[:, :, -1] = missing
    return out


def _normalize(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + np.float32(EPSILON))


def _feed_forward(x: np.ndarray, w: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    hidden = _normalize(x) @ w[f"{name}_in"] + w[f"{name}_bias"]
    return np.maximum(hidden, 0, out=hidden) @ w[f"{name}_out"]


def _attend(
    x: np.ndarray, others: np.ndarray, mine: np.ndarray, theirs: np.ndarray, bias: np.ndarray,
    w: Mapping[str, np.ndarray],
) -> np.ndarray:  # fmt: skip
    """Return the attention output (N, D) of rows x (N, D) over the others (M, D).

    A row does not attend to itself: `mine` (N,) and `theirs` (M,) number the rows. Each may attend to nothing, a key
    of score 0 and value 0, so that a single candidate has an output, too. `bias` (HEADS, M) is added to the scores.
    """
    query, key, value = x @ w["query"], others @ w["key"], others @ w["value"]
    out, size = np.empty_like(query), query.shape[1] // HEADS
    if compiled is not None and size % 16 == 0 and len(x):
        _attend_compiled(query, key, value, mine, theirs, bias, out)
        return out @ w["mix"]
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        logit = query[:, part] @ key[:, part].T
        logit *= np.float32(size**-0.5)
        logit += bias[head]
        logit[mine[:, None] == theirs] = -np.inf
        top = np.maximum(logit.max(axis=1, initial=0), 0)[:, None]
        share = np.exp(logit - top)
        out[:, part] = (share @ value[:, part]) / (share.sum(axis=1, keepdims=True) + np.exp(-top))
    return out @ w["mix"]


def _attend_compiled(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, mine: np.ndarray, theirs: np.ndarray, bias: np.ndarray,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Write the attention output to `out` (N, D); the kernel takes keys by column, and a multiple of 16 others."""
    count, size = key.shape
    width = -(-count // 16) * 16
    keys, values = np.zeros((size, width), np.float32), np.zeros((width, size), np.float32)
    biases = np.full((HEADS, width), -1e30, np.float32)
    keys[:, :count], values[:count], biases[:, :count] = key.T, value, bias
    place = np.full(max(mine.max(), theirs.max(initial=0)) + 1, -1, np.int32)
    place[theirs] = np.arange(count, dtype=np.int32)
    compiled.attend(query, keys, values, biases, place[mine], out)
