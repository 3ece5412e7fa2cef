"""The blend of two rankers: the weighted sum of the scores of the trees and of the transformer, each standardized."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from handsell.core.errors import BundleError
from handsell.ranking.calibrated_ranker import CalibratedRanker
from handsell.ranking.calibration import Calibration, fit_calibration
from handsell.ranking.examples import HISTORY_LABEL
from handsell.ranking.lists import Lists
from handsell.ranking.shards import RankingExamples
from handsell.ranking.transformer import TransformerRanker
from handsell.ranking.xgboost_ranker import WITHOUT_EVENTS, XGBoostRanker

log = logging.getLogger(__name__)

BLEND = "blend.json"
SHARES = tuple(i / 10 for i in range(11))  # shares of the transformer that validation chooses from


@dataclass(frozen=True)
class BlendedRanker(CalibratedRanker):
    """Weighted sum of two rankers of the same features; the first trees make the preselection."""

    trees: XGBoostRanker
    transformer: TransformerRanker
    of_trees: float  # multiple of a raw score: weight / its standard deviation within a request
    of_transformer: float
    calibration: Calibration
    ranks_without_events: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        return self.trees.features

    @property
    def history_items(self) -> int:
        return self.transformer.history_items

    def raw(
        self, x: np.ndarray, trees: int = 0, use: np.ndarray | None = None, lists: Lists | None = None
    ) -> np.ndarray:
        """Return raw scores (B, K) float32, NaN where `use` is false; with `trees`, those of the first trees alone."""
        if trees:
            return self.trees.raw(x, trees, use)
        if not self.of_trees:
            return np.float32(self.of_transformer) * self.transformer.raw(x, use=use, lists=lists)
        scores = self.trees.raw(x, use=use)
        if not self.of_transformer:
            return np.float32(self.of_trees) * scores
        return self.blend(scores, self.transformer.raw(x, use=use, lists=lists))

    def blend(self, trees: np.ndarray, transformer: np.ndarray) -> np.ndarray:
        """Return the blended raw scores float32 of raw scores of any shape."""
        return np.float32(self.of_trees) * trees + np.float32(self.of_transformer) * transformer

    def contributions_in_list(self, x: np.ndarray, row: int, lists: Lists) -> tuple[np.ndarray, float]:
        """Return the contribution (F,) float32 of each feature of one row of a request's x (K, F), and the base score.

        They are those of both rankers, by their weights; with the base they sum to `raw`.
        """
        each, base = self.trees.contributions(x[row])
        each, base = self.of_trees * each, self.of_trees * base
        if self.of_transformer:
            more, start = self.transformer.contributions_in_list(x, row, lists)
            each, base = each + self.of_transformer * more, base + self.of_transformer * start
        return each.astype(np.float32), base

    def importance(self) -> dict[str, float]:
        """Return each feature's share, largest first: the mean of both, by their weights."""
        whole = self.of_trees + self.of_transformer
        parts = ((self.of_trees, self.trees), (self.of_transformer, self.transformer))
        share = dict.fromkeys(self.features, 0.0)
        for weight, ranker in parts:
            for name, value in ranker.importance().items():
                share[name] += value * weight / whole
        return dict(sorted(share.items(), key=lambda pair: -pair[1]))

    def save(self, path: Path) -> None:
        """Save both rankers in folders of their own, and blend.json, without_events.json and calibration.json."""
        self.trees.save(path / "trees")
        self.transformer.save(path / "transformer")
        (path / BLEND).write_text(json.dumps({"of_trees": self.of_trees, "of_transformer": self.of_transformer}))
        (path / WITHOUT_EVENTS).write_text(json.dumps(self.ranks_without_events))
        self.calibration.save(path / "calibration.json")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the ranker; raises BundleError where a file is missing or corrupt, or the files disagree."""
        try:
            multiples = json.loads((path / BLEND).read_text())
            parts = float(multiples["of_trees"]), float(multiples["of_transformer"])
            without = bool(json.loads((path / WITHOUT_EVENTS).read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"ranker in {path}: {BLEND} or {WITHOUT_EVENTS} is missing or corrupt ({type(error).__name__}): "
                "roll back, or train again"
            ) from error
        trees, transformer = XGBoostRanker.load(path / "trees"), TransformerRanker.load(path / "transformer")
        if trees.features != transformer.features:
            raise BundleError(
                f"ranker in {path}: trees and transformer have different features: they are from different trainings; "
                "roll back, or train again"
            )
        return cls(trees, transformer, *parts, Calibration.load(path / "calibration.json"), without)


def choose_blend(trees: XGBoostRanker, transformer: TransformerRanker, rows: RankingExamples) -> BlendedRanker:
    """Return the blend with the best NDCG@10 on validation examples with history; on a tie, the one with more trees.

    Without examples, both weigh the same.
    """
    listed = rows.label != HISTORY_LABEL
    qid, label = rows.qid[listed], rows.label[listed]
    scores = trees.raw(rows.x[listed]), transformer.score_examples(rows)[listed]
    unit = [1 / (measure_spread(score, qid) or 1.0) for score in scores]

    def weigh(share: float) -> BlendedRanker:
        parts = (1 - share) * unit[0], share * unit[1]
        return BlendedRanker(trees, transformer, *parts, Calibration.logistic())

    shares = SHARES if len(qid) else (0.5,)
    blends = [weigh(share) for share in shares]
    found = [measure_ndcg(blend.blend(*scores), label, qid) for blend in blends]
    chosen = int(np.argmax(found))
    best = blends[chosen]
    log.info("ranker: transformer's share %.1f, validation NDCG@10 %.4f", shares[chosen], found[chosen])
    return replace(best, calibration=fit_calibration(best.blend(*scores), label > 0, rows.weight[listed]))


def measure_spread(score: np.ndarray, qid: np.ndarray) -> float:
    """Return the standard deviation of scores (N,) within their requests."""
    _, group = np.unique(qid, return_inverse=True)
    mean = np.bincount(group, score) / np.bincount(group)
    return float(np.sqrt(((score - mean[group]) ** 2).mean())) if len(score) else 0.0


def measure_ndcg(score: np.ndarray, label: np.ndarray, qid: np.ndarray, top: int = 10) -> float:
    """Return the mean NDCG of the first `top` by score (N,), with labels (N,) as gains; 0 without examples."""
    if not len(qid):
        return 0.0
    _, group = np.unique(qid, return_inverse=True)
    begin = np.append(0, np.cumsum(np.bincount(group)))
    sums = []
    for key in (-score, -label.astype(float)):
        order = np.lexsort((key, group))
        place = np.arange(len(order)) - begin[group[order]]
        gain = np.where(place < top, label[order] / np.log2(place + 2), 0)
        sums.append(np.bincount(group[order], gain))
    return float((sums[0] / np.maximum(sums[1], 1e-9)).mean())
