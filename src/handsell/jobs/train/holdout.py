"""The evaluated twin beside the refitted bundle: do its figures still speak for what will serve?

The ranker was taught by the twin's retrievers and serves behind the refitted ones. Both answer the same requests
with the same item values: how many items their slates share, and how far each feature of their candidates moved.
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
from handsell.features.matrix import ItemValues, build_matrix, feature_names
from handsell.jobs.train.examples import day_values
from handsell.jobs.train.requests import load_requests

REHEARSAL = 64  # requests that a finished bundle answers before it may be promoted
LITTLE_SHARED = 0.5  # of the slates' items: below, the refit is another model than the one that was measured
MUCH_MOVED = 0.5  # standard deviations of a feature's mean: above, the ranker sees what it was not taught


@dataclass(frozen=True, slots=True)
class HoldoutComparison:
    """Mean share of the slates' items in common, and each feature's drift in the twin's standard deviations."""

    overlap: float
    drift: dict[str, float]

    @property
    def warnings(self) -> tuple[str, ...]:
        said = []
        if self.overlap < LITTLE_SHARED:
            said.append(
                f"The refitted models' slates share only {self.overlap:.0%} of their items with the evaluated twin's: "
                "its figures may not hold for them."
            )
        moved = {name: by for name, by in self.drift.items() if by > MUCH_MOVED}
        if moved:
            named = ", ".join(f"{name} by {by:.1f}" for name, by in sorted(moved.items(), key=lambda m: -m[1])[:5])
            said.append(f"Features that moved by more than {MUCH_MOVED} standard deviations in the refit: {named}.")
        return tuple(said)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


def compare_with_holdout(config: Config, run: Path, twin: Path, bundle: Path) -> HoldoutComparison:
    """Load a finished bundle as serving does and let it answer some requests beside its twin.

    A Ray task. Raises BundleError when a slate comes out empty.
    """
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    rows = pq.read_metadata(run / "windows" / "test.parquet").num_rows
    requests, _ = load_requests(config, run, "test", slice(0, min(REHEARSAL, rows)), snapshot)
    values = day_values(config, run, "test", snapshot)
    ours, theirs = load_stages(bundle), load_stages(twin, config, snapshot=snapshot, items=values)
    slate, twin_slate = (recommend_slates(stages.funnel, requests) for stages in (ours, theirs))
    if (slate == NONE).all(axis=1).any():
        raise BundleError(f"bundle {bundle.name} gave an empty slate in its rehearsal: see the log of this job")
    before, after = (_features(stages, requests, values, snapshot) for stages in (theirs, ours))
    return HoldoutComparison(
        shared(slate, twin_slate), drift(before, after, feature_names(config, ours.candidates.sources))
    )


def shared(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over rows of the share of a's items (R, n), -1 padded, that b has too."""
    parts = [len(np.intersect1d(x[x >= 0], y[y >= 0])) / max((x >= 0).sum(), 1) for x, y in zip(a, b, strict=True)]
    return float(np.mean(parts))


def drift(before: np.ndarray, after: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Feature → |mean after - mean before| in standard deviations before; (N, F) and (M, F), NaN where missing.

    A feature that did not vary before, or is missing throughout, is left out.
    """
    out = {}
    for f, name in enumerate(names):
        old, new = (x[:, f][np.isfinite(x[:, f])].astype(np.float64) for x in (before, after))
        if len(old) and len(new) and old.std() > 0:
            out[name] = float(abs(new.mean() - old.mean()) / old.std())
    return out


def _features(stages: Stages, requests: Requests, values: ItemValues, snapshot: Snapshot) -> np.ndarray:
    """(N, F) what the ranker is shown of every candidate."""
    found = run_local(stages.candidates.candidates(requests, stages.config.retrieval.candidates))
    return build_matrix(requests, found, values, snapshot, stages.config)[found.item != NONE]
