"""Comparison of the published bundle, refitted on all data, with the holdout model that was evaluated.

The ranker was trained behind the holdout model's retrievers and is served behind the refitted ones. Both models get
the same requests and item values: compared are the items of their slates, and the features of their candidates.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from handsell.bundles.stages import Stages, load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Requests
from handsell.core.errors import BundleError
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.evaluation.replay import recommend_slates
from handsell.features.matrix import ItemValues, build_matrix, list_features
from handsell.jobs.train.examples import load_item_values
from handsell.jobs.train.requests import load_requests

REQUESTS = 64
MIN_OVERLAP = 0.5  # of the slates' items; with less, the evaluation may not hold for the refitted models
MAX_DRIFT = 0.5  # standard deviations of a feature's mean; beyond, the ranker gets values that it was not trained on


@dataclass(frozen=True, slots=True)
class RefitComparison:
    """Mean share of slate items in common, and each feature's drift in the holdout's standard deviations."""

    overlap: float
    drift: dict[str, float]

    @property
    def warnings(self) -> tuple[str, ...]:
        found = []
        if self.overlap < MIN_OVERLAP:
            found.append(
                f"The slates of the refitted models share only {self.overlap:.0%} of their items with those of the "
                "evaluated holdout model: the evaluation may not hold for them."
            )
        drifted = {name: by for name, by in self.drift.items() if by > MAX_DRIFT}
        if drifted:
            worst = sorted(drifted.items(), key=lambda pair: -pair[1])[:5]
            named = ", ".join(f"{name} by {by:.1f}" for name, by in worst)
            found.append(f"Features that drifted by more than {MAX_DRIFT} standard deviations in the refit: {named}.")
        return tuple(found)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


def compare_refit(config: Config, run: Path, holdout: Path, bundle: Path) -> RefitComparison:
    """Load a bundle as serving does and compare its answers to test requests with the holdout's. A Ray task.

    Raises BundleError for slates that should not be empty (see require_items).
    """
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    rows = pq.read_metadata(run / "windows" / "test.parquet").num_rows
    requests, _ = load_requests(config, run, "test", slice(0, min(REQUESTS, rows)), snapshot)
    values = load_item_values(config, run, "test", snapshot)
    refitted, evaluated = load_stages(bundle), load_stages(holdout, config, snapshot=snapshot, items=values)
    new, old = (recommend_slates(stages.funnel, requests) for stages in (refitted, evaluated))
    require_items(bundle.name, new, old)
    before, after = (_candidate_features(stages, requests, values, snapshot) for stages in (evaluated, refitted))
    names = list_features(config, refitted.candidates.sources)
    return RefitComparison(compute_overlap(new, old), compute_drift(before, after, names))


def require_items(bundle: str, new: np.ndarray, old: np.ndarray) -> None:
    """Raise BundleError if all slates `new` (R, n) are empty, or one is where that of the holdout `old` is not.

    A slate may be empty: nothing is left for a user who has interacted with every item.
    """
    empty = (new == NONE).all(axis=1)
    wrong = empty if empty.all() else empty & (old != NONE).any(axis=1)
    if wrong.any():
        raise BundleError(
            f"bundle {bundle}: expected items for each of {len(new)} test requests that the holdout model has items "
            f"for, got {wrong.sum()} empty slates: see the log of this job"
        )


def compute_overlap(new: np.ndarray, old: np.ndarray) -> float:
    """Return the mean share of the items in a row of `new` (R, n), -1 padded, that `old` has too.

    Rows without items are left out.
    """
    rows = [(x[x >= 0], y) for x, y in zip(new, old, strict=True) if (x >= 0).any()]
    return float(np.mean([len(np.intersect1d(x, y)) / len(x) for x, y in rows]))


def compute_drift(before: np.ndarray, after: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Return |mean after - mean before| in standard deviations before, by feature; (N, F) and (M, F), NaN: missing.

    Features that are constant before, or missing in all rows, are left out.
    """
    drift = {}
    for f, name in enumerate(names):
        old, new = (x[:, f][np.isfinite(x[:, f])].astype(np.float64) for x in (before, after))
        if len(old) and len(new) and old.std() > 0:
            drift[name] = float(abs(new.mean() - old.mean()) / old.std())
    return drift


def _candidate_features(stages: Stages, requests: Requests, values: ItemValues, snapshot: Snapshot) -> np.ndarray:
    """(N, F) the ranker's features of every candidate."""
    found = run_local(stages.candidates.candidates(requests, stages.config.retrieval.candidates))
    return build_matrix(requests, found, values, snapshot, stages.config)[found.item != NONE]
