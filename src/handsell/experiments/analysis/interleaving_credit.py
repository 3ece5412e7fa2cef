"""Which of two interleaved arms do people prefer? Clicks are credited to teams (@chapelle2012interleaving)."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np

from handsell.experiments.analysis.effects import MIN_NUMERATOR, MIN_UNITS, Outcome
from handsell.experiments.analysis.outliers import SLATES_PER_HOUR
from handsell.experiments.analysis.ratios import summarize
from handsell.experiments.analysis.sequences import ALPHA, compute_p_value, compute_width, tune_prior

SMALLEST_PREFERENCE = 0.05  # tunes the sequence; interleaving sees small differences sooner than arms do


@dataclass(frozen=True, slots=True)
class TeamPreference:
    """(clicks of the challenger − clicks of control) / clicks of both, in −1 … 1, with an always-valid interval."""

    control: str
    challenger: str
    outcome: Outcome  # of the challenger
    preference: float
    low: float | None
    high: float | None
    p_value: float
    clicks: tuple[int, int]  # control, challenger
    shown: tuple[int, int]  # items that each brought; team draft makes them nearly equal
    units: int  # with a click


def read_credit(database: duckdb.DuckDBPyConnection, teams: tuple[str, str]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return clicks (N, 2) of units by team, without bots, and the items that each team brought."""
    columns = ", ".join(f"count(*) FILTER (team = ?) AS team_{t}" for t in range(2))
    clicks = database.execute(
        f"SELECT {columns} FROM clicked JOIN (SELECT DISTINCT unit, slate, item, team FROM shown) AS s "
        "USING (unit, slate, item) JOIN constants USING (unit) WHERE busiest_hour <= ? GROUP BY unit",
        [*teams, SLATES_PER_HOUR],
    ).fetchnumpy()
    shown = database.execute(f"SELECT {columns} FROM shown", list(teams)).fetchone() or (0, 0)
    return np.stack([clicks["team_0"], clicks["team_1"]], axis=1), (int(shown[0]), int(shown[1]))


def estimate_preference(
    clicks: np.ndarray, shown: tuple[int, int], teams: tuple[str, str], alpha: float = ALPHA
) -> TeamPreference:
    """Estimate the preference from the clicks (N, 2) of units, control's first."""
    clicks = clicks[clicks.sum(axis=1) > 0].astype(float)
    total = clicks.sum(axis=0)
    of_teams = (int(total[0]), int(total[1]))
    value = float((total[1] - total[0]) / total.sum()) if total.sum() else 0.0
    outcome: Outcome = "undecided"
    low = high = None
    p = 1.0
    if len(clicks) >= MIN_UNITS and total.sum() >= MIN_NUMERATOR:
        sums = summarize(clicks[:, 1] - clicks[:, 0], clicks.sum(axis=1), np.zeros(len(clicks)))
        error = float(np.sqrt(sums.ratio_var("numerator", "denominator") / len(clicks)))
        if error > 0:
            y = (tune_prior(SMALLEST_PREFERENCE, alpha) / error) ** 2
            half = float(compute_width(y, alpha)) * error
            low, high, p = max(value - half, -1.0), min(value + half, 1.0), float(compute_p_value(value / error, y))
            outcome = "beats" if low > 0 else "loses" if high < 0 else "undecided"
    return TeamPreference(*teams, outcome, value, low, high, p, of_teams, shown, len(clicks))
