"""The ranker finds a planted order, in one process and on two Ray workers."""

import numpy as np
import pytest

from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import fit_xgboost
from handsell.testing.planted_ranking import FEATURES, GROUP, compute_utility, ndcg, plant_groups, write_groups

CONFIG = RankingConfig(trees=80, depth=4, min_child_weight=0.5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    write_groups(folder / "train", rng, 400)
    write_groups(folder / "validation", rng, 200, first=10**6)
    return folder / "train", folder / "validation"


@pytest.fixture(scope="module")
def test_groups():
    examples = plant_groups(np.random.default_rng(99), 400)
    return examples.x.reshape(400, GROUP, -1), examples.label.reshape(400, GROUP)


@pytest.fixture(scope="module")
def local(folders):
    return fit_xgboost(*folders, CONFIG, FEATURES)


def test_finds_the_planted_order(local, test_groups):
    x, label = test_groups
    found, ceiling = ndcg(local.raw(x), label), ndcg(compute_utility(x), label)
    assert found > 0.95 * ceiling
    best_column = max(ndcg(sign * np.nan_to_num(x[..., f]), label) for f in range(len(FEATURES)) for sign in (1, -1))
    assert found > best_column + 0.15


def test_importance_names_what_was_planted(local):
    names = list(local.importance())
    assert set(names[:3]) == {"taste", "age", "fits_hour"}


def test_scores_are_calibrated_probabilities(local, test_groups):
    x, label = test_groups
    score, positive = local.score(x).ravel(), (label > 0).ravel()
    assert score.mean() == pytest.approx(positive.mean(), abs=0.01)
    for low, high in ((0.0, 0.1), (0.2, 0.5), (0.5, 0.9)):
        inside = (score >= low) & (score < high)
        assert inside.sum() > 50
        assert score[inside].mean() == pytest.approx(positive[inside].mean(), abs=0.08)


def test_a_better_item_scores_higher(local):
    x = np.zeros((1, 2, len(FEATURES)), np.float32)
    x[0, :, 1], x[0, :, 2] = 0.5, 1.0  # same age, hour fits
    x[0, :, 0] = [-1.5, 1.5]
    score = local.score(x)[0]
    assert score[1] > score[0]


@pytest.mark.slow  # starts workers of Ray Train
def test_one_and_two_ray_workers_agree_with_the_local_fit(ray_cluster, folders, local, test_groups, tmp_path):
    from handsell.jobs.train.distributed.ranker import fit_ranker_on_ray

    x, label = test_groups
    one = fit_ranker_on_ray(*folders, CONFIG, FEATURES, tmp_path / "one")
    two = fit_ranker_on_ray(*folders, CONFIG.model_copy(update={"workers": 2}), FEATURES, tmp_path / "two")
    np.testing.assert_array_equal(one.raw(x), local.raw(x))  # the same loop on the same rows
    expected = ndcg(local.raw(x), label)
    assert ndcg(two.raw(x), label) == pytest.approx(expected, rel=0.01)
    assert not np.array_equal(two.raw(x), one.raw(x))  # it really was fitted in two halves
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        "ranker.ubj",
        "features.json",
        "prior.json",
        "without_events.json",
        "calibration.json",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}  # Ray Train's storage is gone
