"""The XGBoost ranker: gradient boosted trees over the feature matrix, with calibration.

XGBoost, 11 MiB, is imported where a ranker is loaded: of the stages, ranking alone needs it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from handsell.core.errors import BundleError
from handsell.ranking.calibrated_ranker import CalibratedRanker
from handsell.ranking.calibration import Calibration
from handsell.ranking.trees import TreeTables

if TYPE_CHECKING:
    from handsell.ranking.xgboost_import import xgboost

FUSED, WITHOUT_EVENTS = "src_fused", "without_events.json"


@dataclass(frozen=True)
class XGBoostRanker(CalibratedRanker):
    """A `Ranker`; the booster has only the trees that are used."""

    features: tuple[str, ...]
    booster: xgboost.Booster
    calibration: Calibration
    prior: float = 0.0  # the initial margin is prior × FUSED
    ranks_without_events: bool = False  # whether it also orders requests of users without any event

    def raw(self, x: np.ndarray, trees: int = 0, use: np.ndarray | None = None) -> np.ndarray:
        """Return raw margins (…) float32 of features (…, F), by which candidates are ordered.

        With `trees`, only the first trees are used, for a fast preselection. With `use` (…) bool, the others are NaN.
        """
        *shape, width = x.shape
        if width != len(self.features):
            raise BundleError(
                f"the ranker expects {len(self.features)} features, got {width} columns: "
                "build the matrix with the names in features.json"
            )
        rows = np.ascontiguousarray(x, np.float32).reshape(-1, width)
        if not len(rows):
            return np.zeros(shape, np.float32)
        chosen = np.ones(len(rows), bool) if use is None else np.ascontiguousarray(use, bool).reshape(-1)
        margin = self._predict(rows, chosen, trees)
        if self.prior:
            margin += compute_fused_margin(rows, self.features, self.prior)
        return margin.reshape(shape)

    def _predict(self, rows: np.ndarray, chosen: np.ndarray, trees: int) -> np.ndarray:
        """Return margins (N,) float32 of rows (N, F) without the prior, NaN where `chosen` (N,) is false."""
        if self.tables is not None:
            return self.tables.predict(rows, chosen, trees)
        out = np.full(len(rows), np.nan, np.float32)
        out[chosen] = self.booster.inplace_predict(
            rows[chosen], iteration_range=(0, min(trees, self.booster.num_boosted_rounds())), predict_type="margin",
            missing=np.nan, validate_features=False,
        )  # fmt: skip
        return out

    @cached_property
    def tables(self) -> TreeTables | None:
        """The trees for the compiled loop; None: XGBoost itself predicts."""
        return TreeTables.of(self.booster)

    def contributions(self, x: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the contribution (F,) float32 of each feature of a row x (F,) to its margin, and the base margin.

        These are tree SHAP values (@lundberg2020trees); with the base they sum to `raw`.
        """
        from handsell.ranking.xgboost_import import xgboost

        rows = xgboost.DMatrix(np.ascontiguousarray(x, np.float32)[None], feature_names=self.booster.feature_names)
        each = self.booster.predict(rows, pred_contribs=True, validate_features=False)[0]
        if self.prior:
            each[self.features.index(FUSED)] += compute_fused_margin(x[None], self.features, self.prior)[0]
        return each[:-1], float(each[-1])

    def importance(self) -> dict[str, float]:
        """Return each feature's share of the total gain, largest first; 0 for features without a split."""
        gain: dict[str, Any] = self.booster.get_score(importance_type="total_gain")
        total = sum(gain.values()) or 1.0
        share = {name: gain.get(name, 0.0) / total for name in self.features}
        return dict(sorted(share.items(), key=lambda pair: -pair[1]))

    def save(self, path: Path) -> None:
        """Save ranker.ubj, features.json, prior.json, without_events.json and calibration.json."""
        path.mkdir(parents=True, exist_ok=True)
        self.booster.save_model(str(path / "ranker.ubj"))
        (path / "features.json").write_text(json.dumps(list(self.features), indent=1))
        (path / "prior.json").write_text(json.dumps(self.prior))
        (path / WITHOUT_EVENTS).write_text(json.dumps(self.ranks_without_events))
        self.calibration.save(path / "calibration.json")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Load the ranker; raises BundleError where a file is missing or corrupt, or the files disagree."""
        from handsell.ranking.xgboost_import import xgboost

        try:
            features = tuple(json.loads((path / "features.json").read_text()))
            prior = float(json.loads((path / "prior.json").read_text()))
            file = path / WITHOUT_EVENTS  # bundles of earlier versions lack it
            ranks_without_events = bool(json.loads(file.read_text())) if file.is_file() else False
            booster = xgboost.Booster()
            booster.load_model(str(path / "ranker.ubj"))  # by path: an empty buffer aborts the process
        except (OSError, ValueError, TypeError, xgboost.core.XGBoostError) as error:
            raise BundleError(
                f"ranker in {path}: ranker.ubj, features.json or prior.json is missing or corrupt "
                f"({type(error).__name__}): roll back, or train again"
            ) from error
        check_features(booster, features, path)
        booster.set_param({"nthread": 1})
        loaded = cls(features, booster, Calibration.load(path / "calibration.json"), prior, ranks_without_events)
        _ = loaded.tables  # at the start, not in the first request
        return loaded


def compute_fused_margin(rows: np.ndarray, features: tuple[str, ...], prior: float) -> np.ndarray:
    """Return the initial margin (N,) float32 of rows (N, F): prior × fused score, 0 without a source."""
    if not prior:
        return np.zeros(len(rows), np.float32)
    fused = rows[:, features.index(FUSED)]
    return np.float32(prior) * np.where(np.isnan(fused), np.float32(0), fused)


def check_features(booster: xgboost.Booster, features: tuple[str, ...], path: Path) -> None:
    """Raise BundleError where the booster was not trained on exactly these features."""
    if booster.num_features() != len(features):
        raise BundleError(
            f"ranker in {path}: the booster expects {booster.num_features()} features, features.json has "
            f"{len(features)}: they are from different trainings; roll back, or train again"
        )
    if booster.feature_names is not None and tuple(booster.feature_names) != features:
        wrong = next(i for i, (a, b) in enumerate(zip(booster.feature_names, features, strict=True)) if a != b)
        raise BundleError(
            f"ranker in {path}: the booster expects feature {wrong} to be {booster.feature_names[wrong]}, "
            f"features.json has {features[wrong]}: roll back, or train again"
        )
