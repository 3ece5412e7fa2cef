"""The always-valid test of guard rails: its level under the null hypothesis, and its power."""

import numpy as np
import pytest

from handsell.experiments.sequential_test import LIFTS, ExcessTest, Observations


def run(rng, test, arm, control, steps, level, users=(5, 45)):
    """Return the step at which the evidence reaches 1 / level; None if it never does."""
    for step in range(steps):
        drawn = [
            Observations.of_successes(rng.binomial(n, p(step)), n) for n, p in zip(users, (arm, control), strict=True)
        ]
        if test.add(*drawn) >= 1 / level:
            return step
    return None


@pytest.mark.parametrize(
    ("margin", "scale", "restarts"), [(0.0, 1.0, True), (0.05, 1.0, True), (0.3, 0.7, True), (0.0, 0.8, False)]
)
def test_the_expectation_of_a_factor_is_at_most_one_on_the_whole_null_hypothesis(rng, margin, scale, restarts):
    """Exactly, over all outcomes of 3 users of the arm and 4 of control."""
    for expected in (0.05, 0.4):
        test = ExcessTest(margin, scale, restarts)
        test.add(Observations.of_successes(0, 1), Observations.of_share(expected))
        for c in np.linspace(0.01, 0.99, 12):
            for a in np.linspace(0, min(margin + scale * c, 1), 5):
                mean = np.zeros(len(LIFTS))
                for x in range(4):
                    for y in range(5):
                        chance = _binomial(3, x, a) * _binomial(4, y, c)
                        factor = test._log_factor(Observations.of_successes(x, 3), Observations.of_successes(y, 4))
                        mean += chance * np.exp(factor)
                assert (mean <= 1 + 1e-6).all(), (margin, scale, a, c, mean)


def _binomial(n, k, p):
    return [1, n, n * (n - 1) // 2, n * (n - 1) * (n - 2) // 6, 1][k] * p**k * (1 - p) ** (n - k)


def test_an_arm_that_is_as_good_is_stopped_at_most_at_the_stated_level(rng):
    """Control's mean itself moves: it may, as long as the arm's moves with it."""

    def mean(step):
        return 0.2 + 0.15 * np.sin(step / 7)

    stopped = [run(rng, ExcessTest(), mean, mean, 60, level=0.2) is not None for _ in range(60)]
    assert np.mean(stopped) <= 0.2


def test_an_arm_that_breaks_later_is_found_within_steps(rng):
    found = [run(rng, ExcessTest(0.01), lambda s: 0.9 * (s >= 100), lambda s: 0.002, 130, 0.002) for _ in range(5)]
    assert all(100 <= step <= 105 for step in found), found


def test_one_outcome_per_step_finds_a_broken_arm_within_a_dozen_steps():
    test, steps = ExcessTest(0.01), 0
    while test.evidence < 1 / 0.0015:
        steps += 1
        test.add(Observations.of_share(1.0), Observations.of_share(0.0))
    assert 4 <= steps <= 12


def test_a_loss_is_found_and_a_gain_is_not(rng):
    def lost(arm):
        test = ExcessTest(margin=0.3, scale=0.7)
        for _ in range(80):
            clicks = rng.binomial([40, 40], [arm, 0.2])
            test.add(*(Observations.of_successes(40 - n, 40) for n in clicks))
        return test.evidence

    assert lost(0.05) > 1_000 and lost(0.3) < 2


def test_without_outcomes_nothing_changes():
    test = ExcessTest()
    for _ in range(3):
        test.add(Observations.of_successes(0, 0), Observations.of_successes(1, 5))
        test.add(Observations.of_successes(3, 3), Observations.of_successes(0, 0))
    assert test.evidence == 1.0
