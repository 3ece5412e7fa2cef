"""Outcomes for planted differences, and coverage of the interval."""

from __future__ import annotations

import numpy as np
import pytest

from handsell.evaluation.intervals import MIN_USERS, compare, compare_all, estimate_means


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_a_planted_difference_is_found_in_both_directions(rng):
    base, users = rng.random(800), np.arange(800)
    better = base + 0.05 + rng.normal(0, 0.1, 800)
    found = compare(better, base, users)
    assert found.outcome == "beats" and found.low < 0.05 < found.high
    assert found.relative == pytest.approx(found.difference / base.mean())
    assert found.relative_low < 0.05 / base.mean() < found.relative_high
    assert compare(base, better, users).outcome == "loses"


def test_no_difference_is_undecided(rng):
    base = rng.random(500)
    assert compare(base + rng.normal(0, 0.1, 500), base, np.arange(500)).outcome == "undecided"
    assert compare(base, base, np.arange(500)).outcome == "undecided"


def test_the_interval_contains_the_true_difference_in_about_95_percent_of_samples(rng):
    inside = 0
    for trial in range(200):
        difference = rng.normal(0.1, 1.0, 120)
        found = compare(difference, np.zeros(120), np.arange(120), resamples=400, seed=trial)
        inside += found.low <= 0.1 <= found.high
    assert 180 <= inside <= 199


def test_requests_of_one_user_are_not_independent(rng):
    """Ten copies of each user's value are no more evidence than one."""
    value = rng.normal(0.02, 0.3, 60)
    once = compare(value, np.zeros(60), np.arange(60))
    tenfold = compare(np.repeat(value, 10), np.zeros(600), np.repeat(np.arange(60), 10))
    as_if_independent = compare(np.repeat(value, 10), np.zeros(600), np.arange(600))
    assert tenfold.high - tenfold.low == pytest.approx(once.high - once.low, rel=0.05)
    assert as_if_independent.high - as_if_independent.low < 0.5 * (once.high - once.low)
    assert tenfold.users == 60 and tenfold.requests == 600


def test_unknown_users_are_clusters_of_one_request(rng):
    assert compare(rng.random(30), np.zeros(30), np.full(30, -1)).users == 30


def test_too_few_users_are_undecided():
    few = MIN_USERS - 1
    assert compare(np.ones(few), np.zeros(few), np.arange(few)).outcome == "undecided"
    assert compare(np.ones(few + 1), np.zeros(few + 1), np.arange(few + 1)).outcome == "beats"


def test_the_same_seed_gives_the_same_interval(rng):
    a, b = rng.random(100), rng.random(100)
    assert compare(a, b, np.arange(100)) == compare(a, b, np.arange(100))
    assert compare(a, b, np.arange(100), seed=1).low != compare(a, b, np.arange(100)).low


def test_requests_without_a_value_are_left_out_of_both(rng):
    a, b = rng.random(50), rng.random(50)
    a[:5], b[5:8] = np.nan, np.nan
    found = compare(a, b, np.arange(50))
    assert found == compare(a[8:], b[8:], np.arange(8, 50)) and found.requests == 42


def test_several_challengers_compared_together_equal_single_comparisons(rng):
    base, users = rng.random(90), np.repeat(np.arange(30), 3)
    challengers = {"a": rng.random(90), "b": rng.random(90), "gap": np.where(np.arange(90) < 9, np.nan, 0.5)}
    together = compare_all(challengers, base, users)
    assert list(together) == ["a", "b", "gap"]
    for name, values in challengers.items():
        alone = compare(values, base, users)
        np.testing.assert_allclose(
            [alone.low, alone.high, alone.relative_low],
            [together[name].low, together[name].high, together[name].relative_low],
        )


def test_a_baseline_of_zero_has_no_relative_difference():
    found = compare(np.ones(20), np.zeros(20), np.arange(20))
    assert found.outcome == "beats" and np.isnan(found.relative) and np.isnan(found.relative_low)


def test_nothing_to_compare_is_undecided():
    found = compare(np.full(5, np.nan), np.ones(5), np.arange(5))
    assert found.outcome == "undecided" and found.requests == 0


def test_means_with_intervals(rng):
    values = rng.random(400)
    found = estimate_means({"a": values}, np.arange(400))["a"]
    assert found.mean == pytest.approx(values.mean()) and found.low < found.mean < found.high


def test_values_of_different_length_are_rejected():
    with pytest.raises(ValueError, match="score all on the same requests"):
        compare(np.ones(3), np.ones(4), np.arange(4))
