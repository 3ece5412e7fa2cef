"""Calibration: correct probabilities in the order of the ranker."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.errors import BundleError
from handsell.ranking.calibration import Calibration, fit_calibration


def sigmoid(raw):
    return 1 / (1 + np.exp(-raw))


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    raw = rng.normal(-1, 2, 20_000)
    return raw, rng.random(len(raw)) < sigmoid(raw), np.ones(len(raw))


def test_recovers_a_planted_probability(sample):
    calibration = fit_calibration(*sample)
    grid = np.linspace(-4, 3, 50)
    assert np.abs(calibration(grid) - sigmoid(grid)).max() < 0.06
    assert calibration(sample[0]).mean() == pytest.approx(sample[1].mean(), abs=0.005)


def test_sampled_negatives_represent_those_left_out(sample):
    raw, positive, weight = sample
    rng = np.random.default_rng(0)
    kept = positive | (rng.random(len(raw)) < 0.1)
    stands_for = np.where(positive, 1.0, 10.0)
    thinned = fit_calibration(raw[kept], positive[kept], stands_for[kept])
    naive = fit_calibration(raw[kept], positive[kept], weight[kept])
    assert thinned(raw).mean() == pytest.approx(positive.mean(), abs=0.02)
    assert naive(raw).mean() > 1.5 * positive.mean()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans(), st.floats(0.1, 20)), max_size=60))
def test_is_monotone_within_0_and_1(rows):
    raw, positive, weight = (np.array(c) for c in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    calibration = fit_calibration(raw, positive.astype(bool), weight)
    assert calibration.is_sound()
    score = calibration(np.sort(np.concatenate([raw, np.linspace(-60, 60, 100)])))
    assert (np.diff(score) >= 0).all() and score[0] >= 0 and score[-1] <= 1


def test_scores_within_an_isotonic_step_differ(sample):
    calibration = fit_calibration(*sample)
    inner = np.linspace(-2, 2, 200)
    assert len(np.unique(calibration(inner))) == 200


@pytest.mark.parametrize(
    ("raw", "positive"),
    [([], []), ([1.0, 2.0], [1, 1]), ([1.0, 2.0], [0, 0]), ([1.0, 1.0], [0, 1]), ([np.nan, 1.0], [0, 1])],
    ids=["empty", "only positives", "only negatives", "constant", "one finite"],
)
def test_keeps_the_order_where_nothing_can_be_fitted(raw, positive):
    calibration = fit_calibration(np.array(raw), np.array(positive, bool), np.ones(len(raw)))
    assert (np.diff(calibration(np.linspace(-3, 3, 20))) > 0).all()


def test_keeps_the_order_where_validation_contradicts_the_ranker():
    calibration = fit_calibration(np.arange(10.0), np.arange(10) < 3, np.ones(10))
    assert calibration(np.array([1.0])) < calibration(np.array([8.0]))


def test_round_trip(sample, tmp_path):
    calibration = fit_calibration(*sample)
    calibration.save(tmp_path / "calibration.json")
    grid = np.linspace(-9, 9, 500)
    np.testing.assert_array_equal(Calibration.load(tmp_path / "calibration.json")(grid), calibration(grid))


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"raw": [1, 0], "score": [0, 1]}), '{"raw": []}'])
def test_corrupt_file_is_a_bundle_error(content, tmp_path):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(BundleError, match="corrupt"):
        Calibration.load(tmp_path / "c.json")
