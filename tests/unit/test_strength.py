"""Strength of re-ranking: the largest one within the tolerance is chosen and scales four settings."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.evaluation.intervals import compare
from handsell.jobs.tuning import strength_selection
from handsell.jobs.tuning.strength_selection import (
    MIN_REQUESTS_FOR_INTERVAL,
    STRENGTHS,
    StrengthChoice,
    choose_strength,
    pick_strength,
    with_strength,
)

MANY, FEW = MIN_REQUESTS_FOR_INTERVAL, MIN_REQUESTS_FOR_INTERVAL - 1
NOTHING = compare(np.zeros(0), np.zeros(0), np.zeros(0, int))


def changes(means: dict[float, float], below: float = 0.0) -> dict:
    """Strength → a comparison with this relative change, and a bound that lies `below` it."""
    return {s: replace(NOTHING, relative=change, relative_low=change - below) for s, change in means.items()}


def linear(loss: float) -> dict[float, float]:
    """The strength costs `loss` times itself."""
    return {s: -loss * s for s in STRENGTHS}


@pytest.mark.parametrize(
    ("loss", "expected"), [(0.0, 1.0), (0.02, 1.0), (0.03, 0.5), (0.05, 0.35), (0.5, 0.0), (-0.1, 1.0)]
)
def test_the_largest_strength_within_the_tolerance_is_picked(loss, expected):
    assert pick_strength(changes(linear(loss)), MANY, 0.02).value == expected


def test_strength_never_falls_with_the_tolerance():
    found = [pick_strength(changes(linear(0.1)), MANY, tolerance).value for tolerance in np.linspace(0, 0.12, 25)]
    assert found == sorted(found) and found[0] == 0.0 and found[-1] == 1.0


def test_many_requests_are_judged_by_the_bound_and_few_by_the_mean():
    uncertain = changes(linear(0.02), below=0.008)
    sure, unsure = pick_strength(uncertain, MANY, 0.02), pick_strength(uncertain, FEW, 0.02)
    assert (sure.value, sure.by_bound) == (0.5, True)
    assert (unsure.value, unsure.by_bound) == (1.0, False)
    assert "at worst -1.8%" in str(sure) and "the interval's bound" in str(sure)
    assert "at worst" not in str(unsure) and f"the mean, as {FEW} requests are few" in str(unsure)


def test_a_smaller_strength_with_a_loss_does_not_exclude_a_larger_one():
    assert pick_strength(changes({1.0: -0.01, 0.5: -0.3, 0.0: 0.0}), MANY, 0.02).value == 1.0


def test_strength_is_0_if_every_strength_costs_too_much():
    found = pick_strength(changes(dict.fromkeys(STRENGTHS, -0.2)), MANY, 0.02)
    assert found.value == 0.0 and str(found).startswith("strength 0 of re-ranking: -20.0% NDCG@10")


def test_strength_is_0_without_requests():
    found = pick_strength({}, 0, 0.02)
    assert found.value == 0.0 and not found.by_bound and "on 0 validation requests" in str(found)


def test_strength_is_0_if_relative_changes_are_undefined():
    """The ranker's own NDCG is 0: relative changes are NaN."""
    zero = np.zeros(300)
    same = compare(zero, zero, np.arange(300))
    assert np.isnan(same.relative)
    found = pick_strength(dict.fromkeys(STRENGTHS, same), 300, 0.02)
    assert found.value == 0.0 and str(found)


def test_planted_slates_are_compared_with_the_rankers_own(rng):
    """Each strength takes 10 % times itself off every request: 0.2 is the most that 2 % allow for."""
    base, users = rng.uniform(0.2, 0.6, 400), np.arange(400)
    found = pick_strength({s: compare(base * (1 - 0.0999 * s), base, users) for s in STRENGTHS}, 400, 0.02)
    assert found.value == 0.2 and found.by_bound
    assert [one["strength"] for one in found.tried] == list(STRENGTHS)
    said = found.as_dict()
    assert said["window"] == "validation" and said["sentence"] == str(found) and said["tolerance"] == 0.02


def test_a_strength_scales_the_settings_of_variety_and_no_other(configured):
    own = "diversity = 0.4\ncalibration = 0.2\nserendipity = 0.1\nnovelty = 0"
    config = configured(f'name = "shop"\n[reranking]\n{own}')
    turned = with_strength(config, 0.5)
    dials = turned.reranking.scaled()
    assert (dials.diversity, dials.calibration, dials.serendipity, dials.novelty) == (0.2, 0.1, 0.05, 0.0)
    assert turned.reranking.strength == 0.5 and dials.scaled() == dials, "a strength is applied once"
    soft = {"diversity", "calibration", "serendipity", "novelty", "strength"}
    assert dials.model_dump(exclude=soft) == config.reranking.model_dump(exclude=soft)
    assert turned.model_copy(update={"reranking": config.reranking}) == config
    assert with_strength(turned, 0.5) == turned
    assert with_strength(config, 1.0).reranking.scaled() == config.reranking.scaled()


def test_a_configured_strength_is_kept_and_nothing_is_tried(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(strength_selection, "run_tasks", lambda *_: pytest.fail("nothing is to be tried"))
    config, found = choose_strength(configured('name = "shop"\n[reranking]\nstrength = 0.3'), tmp_path, tmp_path)
    assert found is None and config.reranking.strength == 0.3
    assert config.reranking.scaled().diversity == pytest.approx(0.3 * 0.085)


def test_the_config_gets_the_chosen_strength(configured, tmp_path, monkeypatch):
    picked = StrengthChoice(0.35, ({"strength": 0.35, "relative": -0.01, "relative_low": -0.02},), 500, True, 0.02)
    monkeypatch.setattr(strength_selection, "run_tasks", lambda function, tasks: [picked])
    plain = configured('name = "shop"')
    assert plain.reranking.strength == "auto"
    config, found = choose_strength(plain, tmp_path, tmp_path)
    assert found is picked and config == with_strength(plain, 0.35)
