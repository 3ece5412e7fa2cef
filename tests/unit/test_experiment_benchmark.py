"""The benchmark of experiments in small: no more false alarms than promised, planted effects and defects are found."""

import numpy as np
import pytest
from benchmarks.experiments.experiment_run import (
    leak_requests,
    leak_units,
    log_twice,
    log_visitors,
    name_reasons,
    run_defects,
    run_same_arms,
)
from benchmarks.experiments.population import DAYS, build_population, draw_experiment, simulate_population

from handsell.experiments.analysis.metrics import CTR
from handsell.experiments.analysis.verdict import AnalysisSettings, ArmShares, judge

EVEN = ArmShares(((0.5, 0.5),))


@pytest.fixture(scope="module")
def population():
    return build_population(150)


def share(text: str) -> float:
    return float(text.rstrip("%")) / 100


def test_no_effect_is_seldom_found_by_looking_every_day(population):
    """40 experiments with 14 looks each: plain intervals alarm far more often than always-valid ones."""
    found = run_same_arms(population, 40, 800, 0.15, seed=3)
    for row in found["A/A"]:
        assert share(row["false alarms"]) <= 0.1, row
        assert share(row["coverage at all looks"]) == pytest.approx(1 - share(row["false alarms"]))
    assert max(share(row["plain intervals, any look"]) for row in found["A/A"]) >= 0.15
    assert share(found["A/A"][0]["variance removed by CUPED"]) > 0.1
    refused = next(row for row in found["A/A checks"] if row["check"].startswith("verdict refused"))
    assert share(refused["false alarms"]) <= 0.05


def test_a_planted_effect_changes_what_people_do_and_is_found():
    """The same people with and without the effect."""
    control, treatment = (simulate_population(120, effect) for effect in (0.0, -0.3))
    assert (control.first == treatment.first).all() and treatment.clicks.sum() < 0.85 * control.clicks.sum()
    outcomes = draw_experiment(control, treatment, 6_000, np.random.default_rng(0)).read(DAYS - 1)
    verdict = judge("test", outcomes, EVEN, AnalysisSettings(CTR))
    assert verdict.decisions == {"bold": "loses"} and verdict.main[0].high < 0


@pytest.mark.parametrize(
    ("defect", "check"),
    [
        (log_twice, "slates per unit"), (log_visitors, "sample ratio"), (leak_units, "sample ratio"),
        (leak_requests, "units in several arms"),
    ],
)  # fmt: skip
def test_a_planted_defect_is_refused_by_its_check(population, defect, check):
    rng = np.random.default_rng(1)
    outcomes = defect(draw_experiment(population, None, 20_000, rng).read(DAYS - 1), rng)
    verdict = judge("test", outcomes, EVEN, AnalysisSettings(CTR))
    assert verdict.decisions == {"bold": "refused"} and check in name_reasons(verdict)


def test_experiments_without_a_defect_are_not_refused(population):
    first = run_defects(population, 3, 2_000, seed=5)[0]
    assert first["defect"] == "none" and first["refused"] == "0 of 3"
