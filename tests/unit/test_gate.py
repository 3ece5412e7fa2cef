"""The gate decides from planted differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from handsell.bundles.config import GateConfig
from handsell.bundles.gate import BundleScores, check_absence_loss, decide_against_newer, decide_promotion
from handsell.evaluation.intervals import compare

USERS = np.arange(600)
CONFIG = GateConfig(tolerance=0.02, max_coverage_loss=0.2, min_requests=50)


@pytest.fixture
def live() -> BundleScores:
    return BundleScores(np.random.default_rng(3).random(600), coverage=0.5)


def shifted(live: BundleScores, by: float, noise: float = 0.02, coverage: float = 0.5) -> BundleScores:
    return BundleScores(live.ndcg + by + np.random.default_rng(4).normal(0, noise, len(live.ndcg)), coverage)


def test_a_better_challenger_passes(live):
    decision = decide_promotion(shifted(live, 0.05), live, USERS, CONFIG)
    assert decision.outcome == "promote" and decision.passed and not decision.warnings
    assert decision.comparison.outcome == "beats" and "live bundle" in decision.sentences[1]


def test_an_equal_challenger_passes_within_the_tolerance(live):
    assert decide_promotion(live, live, USERS, CONFIG).passed
    assert decide_promotion(shifted(live, -0.002), live, USERS, CONFIG).passed


def test_a_worse_challenger_is_refused(live):
    decision = decide_promotion(shifted(live, -0.05), live, USERS, CONFIG)
    assert decision.outcome == "refuse" and not decision.passed
    assert "the live bundle stays" in decision.sentences[0] and "it is worse" in decision.sentences[1]


def test_the_tolerance_is_what_decides(live):
    worse = shifted(live, -0.05)
    assert decide_promotion(worse, live, USERS, GateConfig(tolerance=0.2)).passed
    assert not decide_promotion(worse, live, USERS, GateConfig(tolerance=0.0)).passed


def test_a_loss_that_cannot_be_ruled_out_is_refused(live):
    decision = decide_promotion(shifted(live, 0.0, noise=1.0), live, USERS, CONFIG)
    assert decision.outcome == "refuse" and decision.comparison.outcome == "undecided"
    assert "cannot be ruled out" in decision.sentences[1]


def test_narrow_lists_are_refused_however_accurate(live):
    decision = decide_promotion(shifted(live, 0.1, coverage=0.3), live, USERS, CONFIG)
    assert decision.outcome == "refuse" and "beyond 20%" in decision.sentences[2]
    assert decide_promotion(shifted(live, 0.1, coverage=0.41), live, USERS, CONFIG).passed


@pytest.mark.parametrize(
    ("metric", "key", "within", "beyond"),
    [
        ("creator_coverage", "max_creator_coverage_loss", 0.41, 0.39),
        ("diversity", "max_diversity_loss", 0.46, 0.44),
        ("calibration_error", "max_calibration_rise", 0.62, 0.63),
    ],
)
def test_each_guard_rail_holds_alone(live, metric, key, within, beyond):
    live = replace(live, rails={metric: 0.5})
    better = shifted(live, 0.1)
    kept, broken = (decide_promotion(replace(better, rails={metric: v}), live, USERS, CONFIG) for v in (within, beyond))
    assert kept.passed and f"within {getattr(CONFIG, key):.0%} (gate.{key})" in kept.sentences[3]
    assert broken.outcome == "refuse" and "beyond" in broken.sentences[3]


@pytest.mark.parametrize("value", [None, float("nan"), 0.0])
def test_a_rail_without_a_value_holds(live, value):
    rails = {} if value is None else {"diversity": value}
    decision = decide_promotion(shifted(live, 0.1), replace(live, rails=rails), USERS, CONFIG)
    assert decision.passed and len(decision.sentences) == 3


def test_a_live_bundle_of_newer_events_may_be_better(live):
    decision = decide_against_newer(shifted(live, -0.05), live, USERS, CONFIG)
    assert decision.outcome == "insufficient" and "newer events" in decision.sentences[0]
    assert decide_against_newer(shifted(live, 0.05), live, USERS, CONFIG).passed
    few = slice(0, 49)
    short = BundleScores(live.ndcg[few], 0.5)
    assert "got 49 of 49" in decide_against_newer(short, short, USERS[few], CONFIG).sentences[0]


def test_a_broken_or_narrow_challenger_is_refused_against_newer_events_too(live):
    broken = decide_against_newer(shifted(live, -0.3), live, USERS, CONFIG)
    assert broken.outcome == "refuse" and "it is worse" in broken.sentences[1]
    narrow = decide_against_newer(shifted(live, -0.05, coverage=0.3), live, USERS, CONFIG)
    assert narrow.outcome == "refuse" and "beyond 20%" in narrow.sentences[2]
    strict = CONFIG.model_copy(update={"max_age_loss": 0.0})
    assert decide_against_newer(shifted(live, -0.05), live, USERS, strict).outcome == "refuse"


def test_the_first_bundle_is_promoted_with_a_warning(live):
    decision = decide_promotion(live, None, USERS, CONFIG)
    assert decision.passed and len(decision.warnings) == 1 and "First bundle" in decision.warnings[0]


def test_too_few_requests_or_users_are_insufficient(live):
    few = slice(0, 49)
    decision = decide_promotion(
        BundleScores(live.ndcg[few], 0.5), BundleScores(live.ndcg[few], 0.5), USERS[few], CONFIG
    )
    assert decision.outcome == "insufficient" and not decision.passed and "got 49 of 49" in decision.sentences[0]
    assert decide_promotion(live, live, np.zeros(600, int), CONFIG).outcome == "insufficient"
    none = BundleScores(np.full(600, np.nan), 0.5)
    assert decide_promotion(none, live, USERS, CONFIG).outcome == "insufficient"


def test_a_live_bundle_that_finds_nothing_is_replaced(live):
    nothing = BundleScores(np.zeros(600), 0.0)
    assert decide_promotion(live, nothing, USERS, CONFIG).passed
    assert decide_promotion(nothing, nothing, USERS, CONFIG).passed


def test_the_decision_names_a_retrained_recipe_and_is_json(live):
    import json

    decision = decide_promotion(live, live, USERS, CONFIG, retrained=True)
    assert "the live recipe, retrained" in decision.sentences[1]
    assert json.loads(json.dumps(decision.as_dict()))["passed"] is True


def absence(live: BundleScores, by: float, noise: float = 0.0):
    """Compare requests 30 days after the last event, with a relative change of `by`, with those right after it."""
    late = live.ndcg * (1 + by) + np.random.default_rng(5).normal(0, noise, len(live.ndcg))
    return compare(late, live.ndcg, USERS)


def test_a_challenger_that_fails_users_who_have_been_away_is_refused(live):
    promoted = decide_promotion(shifted(live, 0.1), live, USERS, CONFIG)
    decision = check_absence_loss(promoted, absence(live, -0.2), CONFIG)
    assert promoted.passed and decision.outcome == "refuse" and not decision.passed
    assert "the live bundle stays" in decision.sentences[0]
    assert "30 days instead of 1 minute after the last event, its slates lose 20.0% of NDCG@10" in decision.sentences[1]
    assert "beyond 10% (gate.max_absence_loss)" in decision.sentences[1]
    assert decision.comparison == promoted.comparison and set(promoted.sentences[1:]) < set(decision.sentences)
    assert not any(sentence.startswith("Promoted") for sentence in decision.sentences)


@pytest.mark.parametrize("by", [-0.099, 0.0, 0.3])
def test_an_absence_loss_within_the_limit_changes_nothing(live, by):
    for gate in (
        decide_promotion(shifted(live, 0.1), live, USERS, CONFIG),
        decide_promotion(shifted(live, -0.1), live, USERS, CONFIG),
    ):
        assert check_absence_loss(gate, absence(live, by), CONFIG) is gate


def test_the_limit_of_the_absence_loss_is_a_setting(live):
    promoted = decide_promotion(live, live, USERS, CONFIG)
    assert check_absence_loss(promoted, absence(live, -0.2), GateConfig(max_absence_loss=0.25)) is promoted
    assert not check_absence_loss(promoted, absence(live, -0.05), GateConfig(max_absence_loss=0.01)).passed


def test_a_loss_that_may_be_chance_is_a_warning(live):
    loss = absence(live, -0.13, noise=2.0)
    assert loss.relative < -0.1 and loss.outcome == "undecided"
    promoted = decide_promotion(live, live, USERS, CONFIG)
    decision = check_absence_loss(promoted, loss, CONFIG)
    assert decision.passed and decision.sentences == promoted.sentences
    assert len(decision.warnings) == 1 and "beyond 10%" in decision.warnings[0]


def test_a_first_bundle_with_an_absence_loss_is_promoted_with_a_warning(live):
    decision = check_absence_loss(decide_promotion(live, None, USERS, CONFIG), absence(live, -0.5), CONFIG)
    assert decision.passed and len(decision.warnings) == 2
    assert "First bundle" in decision.warnings[0] and "lose 50.0%" in decision.warnings[1]


def test_an_undefined_absence_loss_changes_nothing(live):
    promoted = decide_promotion(live, live, USERS, CONFIG)
    nothing = compare(np.zeros(600), np.zeros(600), USERS)
    assert np.isnan(nothing.relative) and check_absence_loss(promoted, nothing, CONFIG) is promoted
