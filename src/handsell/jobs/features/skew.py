"""`handsell skew CONFIG`: compare served feature vectors with the same vectors computed from point-in-time values.

Source features (`src_…`) cannot be recomputed and are left out. If a user was served with events that the offline store
does not hold as of that time (newer events of the log, or a session sent with the request), only item and context
features are compared, and the user is listed separately.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from handsell.config import Config
from handsell.core.errors import FeatureError
from handsell.core.paths import Layout
from handsell.features.matrix import find_sources, group_features
from handsell.features.served_log import FEATURE_LOG, read_feature_log
from handsell.features.store import open_store
from handsell.jobs.features.recomputation import RecomputedVectors, recompute

REPORT = "skew.json"  # in the deployment's log folder
TOLERANCE = 1e-4  # relative; of values within ±1 it is absolute
USER_INDEPENDENT = ("item", "context")  # feature groups
SHOWN_USERS = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """Comparison of one feature; the largest difference is infinite if a value is NaN on one side only."""

    feature: str
    group: str
    compared: int
    differing: int
    max_abs: float

    @property
    def share(self) -> float:
        return self.differing / self.compared if self.compared else 0.0


def report_skew(config: Config, console: Console | None = None) -> dict:
    """Compare, print, and write layout.logs/skew.json; returns its content.

    Raises FeatureError if nothing was logged, or if the log holds other features than this config's.
    """
    layout = Layout(config.state)
    logged = read_feature_log(layout.logs / FEATURE_LOG)
    if logged is None:
        raise FeatureError(
            f"expected served feature vectors in {layout.logs / FEATURE_LOG}, got none: serve some requests with a "
            "bundle that has a ranker (ranking.enabled when it was trained) and serving.feature_log_share above 0 "
            f"(it is {config.serving.feature_log_share:g}), then try again"
        )
    again = recompute(logged, config, open_store(config))
    groups = group_features(config, find_sources(logged.names))
    found = {
        "rows": len(logged.vectors),
        "answers": len(set(logged.recommendation_id)),
        "bundles": sorted(set(logged.bundle)),
        "first_us": int(logged.time.min()),
        "last_us": int(logged.time.max()),
        "left_out": list(groups["source"]),
        "fresh_users": sorted({logged.user_id[i] or "(no id)" for i in np.flatnonzero(again.fresh)}),
        "fresh_rows": int(again.fresh.sum()),
        "item_values_days_late": int(again.days_late.max()),
        "features": [_plain(d) for d in sort_worst_first(compare_vectors(logged.names, groups, logged.vectors, again))],
    }
    (layout.logs / REPORT).write_text(json.dumps(found, indent=1, allow_nan=False))
    _show(found, console or Console())
    (console or Console()).print(f"written: {layout.logs / REPORT}", soft_wrap=True, highlight=False)
    return found


def compare_vectors(
    names: Sequence[str], groups: Mapping[str, Sequence[str]], served: np.ndarray, again: RecomputedVectors
) -> list[Difference]:
    """Return one Difference for each feature but the sources', in the order of `names`; `served` (N, F) float32."""
    group_of = {name: group for group, members in groups.items() for name in members}
    found = []
    for column, name in enumerate(names):
        group = group_of[name]
        if group == "source":
            continue
        rows = np.ones(len(served), bool) if group in USER_INDEPENDENT else ~again.fresh
        a = served[rows, column].astype(np.float64)
        b = again.vectors[rows, column].astype(np.float64)
        gap = _gap(a, b)
        differs = gap > TOLERANCE * np.maximum(1.0, np.fmax(np.abs(a), np.abs(b)))
        found.append(Difference(name, group, len(a), int(differs.sum()), float(gap.max(initial=0.0))))
    return found


def _gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return |a - b|; 0 if both are NaN or the same infinity, infinite if one is NaN."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b)
    return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))


def sort_worst_first(found: list[Difference]) -> list[Difference]:
    return sorted(found, key=lambda d: (-d.share, -d.max_abs))


def _plain(difference: Difference) -> dict:
    """Return the fields for JSON, which has no infinity: null means that one side was unknown."""
    value = asdict(difference) | {"share": difference.share}
    return value | {"max_abs": None} if np.isinf(difference.max_abs) else value


def _show(found: dict, console: Console) -> None:
    table = Table(title=f"skew of {found['rows']:,} vectors in {found['answers']:,} answers", title_justify="left")
    for column in ("feature", "compared", "differing", "max |served - point in time|"):
        table.add_column(column, justify="left" if column == "feature" else "right")
    for d in found["features"]:
        most = "one unknown" if d["max_abs"] is None else f"{d['max_abs']:.3g}"
        table.add_row(d["feature"], f"{d['compared']:,}", f"{d['share']:.2%}", most)
    console.print(table)
    for line in _sentences(found):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _sentences(found: dict) -> list[str]:
    """Return the remarks below the table; the last one says whether there is skew."""
    lines = [f"Left out, because ranks and scores of retrieval cannot be recomputed: {', '.join(found['left_out'])}."]
    if found["item_values_days_late"]:
        days = found["item_values_days_late"]
        lines.append(
            f"Item values were served up to {days} day(s) after their snapshot and are compared as of the "
            "snapshot: run `handsell features` and train to renew them."
        )
    if found["fresh_rows"]:
        users, n = found["fresh_users"], len(found["fresh_users"])
        more = f" and {n - SHOWN_USERS} more" if n > SHOWN_USERS else ""
        lines.append(
            f"Fresh events that the offline store does not hold: {found['fresh_rows']:,} vectors of {n} user(s), "
            f"compared in item and context features only: {', '.join(users[:SHOWN_USERS])}{more}."
        )
    bad = [d["feature"] for d in found["features"] if d["differing"]]
    compared = max((d["compared"] for d in found["features"]), default=0)
    if bad:
        conclusion = f"SKEW: {len(bad)} of {len(found['features'])} features differ, worst first: {', '.join(bad)}."
    else:
        conclusion = (
            f"No skew: {len(found['features'])} features of up to {compared:,} vectors agree within {TOLERANCE:g}."
        )
    return [*lines, conclusion]
