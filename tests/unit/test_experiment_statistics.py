"""Statistics of experiments: false alarms at their level, planted effects and defects found, known answers."""

import dataclasses

import numpy as np
import pytest
from tea_tasting import RatioOfMeans

from handsell.core.units import DAY_US
from handsell.experiments.analysis.effects import correct_by_holm, estimate_effects, judge_effect
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import CTR, list_metrics, name_conversion, name_rate
from handsell.experiments.analysis.outliers import limit_outliers
from handsell.experiments.analysis.ratios import RatioEffect, compare_ratios, summarize
from handsell.experiments.analysis.sample_ratio import check_logging_ratio, check_sample_ratio
from handsell.experiments.analysis.segments import estimate_segments
from handsell.experiments.analysis.sequences import (
    compute_p_value,
    compute_width,
    count_errors_to_detect,
    tune_information,
    tune_prior,
)
from handsell.experiments.analysis.verdict import AnalysisSettings, ArmShares, choose_settings, judge

EVEN = ArmShares(((0.5, 0.5),))


def build_outcomes(rng: np.random.Generator, units: int, effect: float = 0.0, days: int = 10) -> UnitOutcomes:
    """Units with habits of their own, half of them in arm `bold`, whose click rate is 1 + effect times as high."""
    arm = rng.integers(2, size=units).astype(np.int8)
    habit = rng.gamma(2.0, 0.5, units)
    slates = 1 + rng.poisson(3 * habit)
    shown = 10 * slates
    chance = np.clip(0.1 * rng.gamma(4.0, 0.25, units) * (1 + effect * (arm == 1)), 0, 1)
    clicks = rng.binomial(shown, chance)
    before = rng.poisson(6 * habit)
    until = 100 * DAY_US
    return UnitOutcomes(
        arms=("control", "bold"), types=("like",), until=until, conversion_us=DAY_US, unit=np.arange(units), arm=arm,
        first=until - (rng.random(units) * days * DAY_US).astype(np.int64), slates=slates,
        first_day_slates=1 + rng.poisson(habit), busiest_hour=np.ones(units, int), shown=shown, clicks=clicks,
        events=clicks[:, None], converted=(clicks > 3)[:, None], before=before[:, None],
        active_1=rng.random(units) < 0.4, active_7=rng.random(units) < 0.2, crossed=np.zeros(units, bool),
        merged=np.zeros(units, bool),
    )  # fmt: skip


def test_ratios_and_cuped_agree_with_tea_tasting(rng):
    o = build_outcomes(rng, 3_000, 0.1)
    sums = [summarize(o.clicks[o.arm == a], o.shown[o.arm == a], o.before[o.arm == a, 0]) for a in (0, 1)]
    ours = compare_ratios(sums, 1)
    theirs = RatioOfMeans(
        "numerator", "denominator", "covariate", use_t=False, equal_var=False, confidence_level=0.95
    ).analyze_aggregates(*sums)
    assert ours.control == pytest.approx(theirs.control) and ours.treatment == pytest.approx(theirs.treatment)
    assert ours.error == pytest.approx((theirs.effect_size_ci_upper - theirs.effect_size) / 1.959964, rel=1e-5)
    ratio = np.log((1 + theirs.rel_effect_size_ci_upper) / (1 + theirs.rel_effect_size)) / 1.959964
    assert ours.log_error == pytest.approx(ratio, rel=1e-5)


def test_the_errors_of_ratios_are_clustered_by_unit(rng):
    """The spread of the click rate over draws is what the error says; counting items as independent says less."""
    found = []
    for _ in range(300):
        o = build_outcomes(rng, 400)
        one = np.ones(len(o))
        sums = [summarize(o.clicks[o.arm == a], o.shown[o.arm == a], one[o.arm == a]) for a in (0, 1)]
        effect = compare_ratios(sums, 1)
        shown = [o.shown[o.arm == a].sum() for a in (0, 1)]
        naive = np.sqrt(effect.control * (1 - effect.control) * (1 / shown[0] + 1 / shown[1]))
        found.append((effect.difference, effect.error, naive))
    difference, error, naive = np.array(found).T
    assert error.mean() == pytest.approx(difference.std(), rel=0.12)
    assert naive.mean() < 0.8 * difference.std()


def test_cuped_removes_what_the_covariate_explains(rng):
    arm, x = rng.integers(2, size=20_000), rng.normal(size=20_000)
    y = 5 + 0.6 * x + 0.8 * rng.normal(size=20_000)
    one = np.ones(20_000)
    effect = compare_ratios([summarize(y[arm == a], one[arm == a], x[arm == a]) for a in (0, 1)], 1)
    assert effect.reduction == pytest.approx(0.36, abs=0.02)
    assert effect.error == pytest.approx(0.8 * np.sqrt(1 / (arm == 0).sum() + 1 / (arm == 1).sum()), rel=0.03)


def test_sequences_hold_at_all_looks_together_and_plain_intervals_do_not(rng):
    """Brownian motion with 50 looks, from a twentieth of the planned information to ten times as much."""
    information = np.geomspace(0.05, 10, 50) * tune_information()
    steps = rng.normal(size=(4_000, 50)) * np.sqrt(np.diff(information, prepend=0))
    z = np.cumsum(steps, axis=1) / np.sqrt(information)
    always, plain = (np.abs(z) > compute_width(information)).any(axis=1), (np.abs(z) > 1.96).any(axis=1)
    assert 0.01 < always.mean() <= 0.05 and plain.mean() > 0.25
    assert (compute_p_value(z, information) < 0.05).any(axis=1).mean() == always.mean()


def test_the_interval_is_narrowest_at_the_planned_information():
    y = tune_information()
    assert compute_width(y) < min(compute_width(y / 2), compute_width(y * 2)) + 0.15
    others = np.geomspace(0.1, 1_000, 2_001)
    assert float(others[np.argmin(compute_width(others))]) == pytest.approx(y, rel=0.01)
    assert float(compute_width(y)) == pytest.approx(3.03, abs=0.02)
    assert tune_prior(0.02) == pytest.approx(0.02 / count_errors_to_detect() * np.sqrt(y))


def test_p_values_are_the_duals_of_intervals():
    for z, y in ((3.0, 4.0), (4.5, 0.3), (2.2, 40.0)):
        p = float(compute_p_value(z, y))
        assert p == 1.0 or float(compute_width(y, p)) == pytest.approx(z)


def test_sample_ratio_false_alarms_are_at_their_level(rng):
    looks = np.cumsum(rng.multinomial(500, [0.5, 0.3, 0.2], size=(2_000, 20)), axis=1)
    last = np.array([check_sample_ratio(counts, (0.5, 0.3, 0.2)).p_value for counts in looks[:, -1]])
    assert (last < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    sequential = [min(check_sample_ratio(c, (5, 3, 2)).sequential_p_value for c in path) for path in looks[:400]]
    assert (np.array(sequential) < 0.05).mean() <= 0.05


def test_a_mismatch_of_two_points_is_found_and_an_expected_ratio_is_not():
    found = check_sample_ratio((10_000, 9_200), (0.5, 0.5))
    assert found.failed and found.p_value < 1e-7 and found.sequential_p_value < 1e-4
    assert not check_sample_ratio((9_050, 950), (0.9, 0.1)).failed
    assert not check_sample_ratio((0, 0), (0.5, 0.5)).failed
    assert check_sample_ratio((500, 10), (1.0, 0.0)).failed  # an arm that has no share has units


def test_changed_shares_are_expected_from_their_change_on(rng):
    o = build_outcomes(rng, 20_000)
    change = o.until - 5 * DAY_US
    late = rng.random(len(o)) < 0.1
    o = dataclasses.replace(o, arm=np.where(o.first < change, o.arm, late).astype(np.int8))
    ramp = ArmShares(((0.5, 0.5), (0.9, 0.1)), (change,))
    known, ignored = (judge("test", o, shares, AnalysisSettings()) for shares in (ramp, EVEN))
    assert not known.reasons and "changed during the experiment" in known.warnings[0]
    assert "sample ratio mismatch" in ignored.reasons[0]


def test_an_arm_that_logs_twice_is_found(rng):
    o = build_outcomes(rng, 2_000)
    assert not check_logging_ratio(o.first_day_slates, o.arm, 2).failed
    twice = np.where(o.arm == 1, 2, 1) * o.first_day_slates
    found = check_logging_ratio(twice, o.arm, 2)
    assert found.failed and found.ratios[0] == pytest.approx(2, abs=0.15)


def test_bots_are_left_out_and_heavy_users_keep_their_click_rate(rng):
    o = build_outcomes(rng, 5_000)
    shown, clicks, busiest = o.shown.copy(), o.clicks.copy(), o.busiest_hour.copy()
    shown[0], clicks[0], busiest[1] = 500_000, 100_000, 900
    kept, counts = limit_outliers(dataclasses.replace(o, shown=shown, clicks=clicks, busiest_hour=busiest))
    assert len(kept) == 4_999 and sum(counts.bots) == 1 and counts.bots[o.arm[1]] == 1
    assert kept.shown[0] < 500 and kept.clicks[0] / kept.shown[0] == pytest.approx(0.2)
    assert 0 < sum(counts.capped) < 40


def test_holm_corrects_as_published():
    assert correct_by_holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_conversion_and_retention_wait_for_the_whole_window(rng):
    o = build_outcomes(rng, 1_000)
    measures = list_metrics(o.types)
    assert measures[name_conversion("like")](o).rows.sum() == (o.days >= 1).sum()
    assert measures["retention day 7"](o).rows.sum() == (o.days >= 8).sum() > 0


def test_a_verdict_beats_loses_or_stays_open(rng):
    settings = AnalysisSettings(smallest_effect=0.1)
    outcomes = {effect: build_outcomes(rng, 20_000, effect) for effect in (-0.1, 0.0, 0.1)}
    found = {effect: judge("test", o, EVEN, settings) for effect, o in outcomes.items()}
    assert [v.decisions["bold"] for v in found.values()] == ["loses", "undecided", "beats"]
    for effect, verdict in found.items():
        (main,) = verdict.main
        assert main.relative_low < effect < main.relative_high and main.low <= main.difference <= main.high
        assert not verdict.reasons and verdict.as_dict()["units"] == verdict.units


def test_few_units_leave_a_verdict_open_and_say_why(rng):
    verdict = judge("test", build_outcomes(rng, 120, 3.0), EVEN, AnalysisSettings())
    assert verdict.decisions == {"bold": "undecided"} and "fewer than 100 units" in verdict.warnings[0]


def test_an_experiment_without_units_has_an_open_verdict(rng):
    nobody = build_outcomes(rng, 50).select(np.zeros(50, bool))
    verdict = judge("test", nobody, EVEN, choose_settings(("like",), "like", 0.02))
    assert verdict.decisions == {"bold": "undecided"} and verdict.units == {"control": 0, "bold": 0}
    assert "NaN" not in str(verdict.as_dict()) and "nan" not in str(verdict.as_dict())


def test_units_that_crossed_over_by_a_merge_are_reported_and_refuse_nothing(rng):
    o = dataclasses.replace(build_outcomes(rng, 8_000, 0.5), merged=np.arange(8_000) < 160)
    verdict = judge("test", o, EVEN, AnalysisSettings())
    assert verdict.decisions == {"bold": "beats"} and (verdict.crossed, verdict.merged) == (0, 160)
    assert any(line.startswith("160 units crossed over") for line in verdict.warnings)


@pytest.mark.parametrize("defect", ["units", "slates", "crossed"])
def test_a_defect_refuses_the_verdict_and_is_named(rng, defect):
    o = build_outcomes(rng, 8_000, 0.5)
    if defect == "units":
        o = o.select((o.arm == 0) | (rng.random(len(o)) < 0.9))
    elif defect == "slates":
        o = dataclasses.replace(o, first_day_slates=o.first_day_slates * (1 + o.arm))
    else:
        o = dataclasses.replace(o, crossed=rng.random(len(o)) < 0.02)
    verdict = judge("test", o, EVEN, AnalysisSettings())
    assert verdict.decisions == {"bold": "refused"} and len(verdict.reasons) == 1
    names = {"units": "sample ratio mismatch", "slates": "logs slates twice", "crossed": "the assignment leaks"}
    assert names[defect] in verdict.reasons[0]
    assert verdict.main[0].outcome == "beats"  # shown all the same


def test_segments_need_more_than_one_look_allows(rng):
    o = build_outcomes(rng, 30_000, 0.3)
    labels = np.where(rng.random(len(o)) < 0.5, "young", "old")
    found = estimate_segments(labels, CTR, list_metrics(o.types)[CTR], o, 0.1)
    assert {s.segment for s in found} == {"young", "old"} and all(s.effect.outcome == "beats" for s in found)
    none = build_outcomes(rng, 30_000)
    many = np.array([f"s{n}" for n in rng.integers(10, size=len(none))])
    assert all(
        s.effect.outcome == "undecided" for s in estimate_segments(many, CTR, list_metrics(("like",))[CTR], none, 0.1)
    )
    assert all(s.corrected_p_value >= s.effect.p_value for s in found)


def test_an_outcome_needs_both_intervals():
    """A log ratio without a value leaves the relative effect open; the absolute one decides."""
    effect = judge_effect("m", "bold", RatioEffect(1.0, 1.5, 0.01, float("nan"), 0.0, 1_000), 0.02)
    assert effect.outcome == "beats" and effect.relative is None
    wide = judge_effect("m", "bold", RatioEffect(1.0, 1.5, 0.01, 5.0, 0.0, 1_000), 0.02)
    assert wide.outcome == "undecided"


def test_arms_share_the_level(rng):
    o = build_outcomes(rng, 20_000, 0.1)
    three = dataclasses.replace(o, arms=("control", "a", "b"), arm=rng.integers(3, size=len(o)).astype(np.int8))
    measure = list_metrics(o.types)[name_rate("like")]
    a, b = estimate_effects("like per day", measure, three, 0.1)
    pair = three.select(three.arm < 2)
    (alone,) = estimate_effects("like per day", measure, dataclasses.replace(pair, arms=("control", "a")), 0.1)
    assert a.high - a.low > 1.02 * (alone.high - alone.low) and b.arm == "b"
