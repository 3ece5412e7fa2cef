"""Contract tests of rankers, run for each ranker of RANKERS."""

import numpy as np
import pytest

from handsell.core.protocols import Ranker, Savable
from handsell.jobs.train.ranker import fit_ranker_in_process
from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import fit_xgboost
from handsell.ranking.ranker_files import load_ranker
from handsell.ranking.stage import ListRanker
from handsell.testing.planted_ranking import FEATURES, write_groups


def xgboost_ranker(folder):
    rng = np.random.default_rng(1)
    write_groups(folder / "train", rng, 60)
    write_groups(folder / "validation", rng, 30, first=1000)
    config = RankingConfig(trees=40, depth=4, min_child_weight=0.1)
    return fit_xgboost(folder / "train", folder / "validation", config, FEATURES)


def list_ranker(model):
    def fit(folder):
        rng = np.random.default_rng(1)
        write_groups(folder / "train", rng, 60)
        write_groups(folder / "validation", rng, 30, first=1000)
        config = RankingConfig(model=model, trees=40, min_child_weight=0.1, transformer={"epochs": 2})
        fit_ranker_in_process(folder / "train", folder / "validation", config, FEATURES, folder / "ranker")
        return load_ranker(folder / "ranker")

    return fit


RANKERS = {"xgboost": xgboost_ranker, "transformer": list_ranker("transformer"), "blend": list_ranker("blend")}


@pytest.fixture(scope="module", params=RANKERS)
def ranker(request, tmp_path_factory):
    return RANKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def x():
    x = np.random.default_rng(2).normal(size=(6, 50, len(FEATURES))).astype(np.float32)
    x[0, :10] = np.nan
    x[1, 3, 2] = np.inf
    return x


def test_keeps_the_protocols(ranker):
    assert isinstance(ranker, Ranker) and isinstance(ranker, Savable)
    assert ranker.features == FEATURES


def test_scores_are_probabilities(ranker, x):
    score = ranker.score(x)
    assert score.shape == (6, 50) and score.dtype == np.float32
    assert np.isfinite(score).all() and score.min() >= 0 and score.max() <= 1


def test_batch_equals_single(ranker, x):
    whole = ranker.score(x)
    np.testing.assert_array_equal(np.concatenate([ranker.score(x[b : b + 1]) for b in range(6)]), whole)
    if isinstance(ranker, ListRanker):  # which sums over the list
        np.testing.assert_allclose(ranker.score(x[:, ::-1]), whole[:, ::-1], rtol=1e-4)
    else:
        np.testing.assert_array_equal(ranker.score(x[:, ::-1]), whole[:, ::-1])


def test_empty_input_gives_empty_output(ranker):
    assert ranker.score(np.zeros((0, 5, len(FEATURES)), np.float32)).shape == (0, 5)
    assert ranker.score(np.zeros((3, 0, len(FEATURES)), np.float32)).shape == (3, 0)


def test_input_is_not_changed(ranker, x):
    before = x.copy()
    ranker.score(x)
    np.testing.assert_array_equal(x, before)


def test_round_trip_is_exact_and_has_no_pickle(ranker, x, tmp_path):
    ranker.save(tmp_path / "new" / "ranker")
    loaded = type(ranker).load(tmp_path / "new" / "ranker")
    np.testing.assert_array_equal(loaded.score(x), ranker.score(x))
    assert loaded.features == ranker.features
    for path in (tmp_path / "new").rglob("*"):
        assert path.suffix not in {".pkl", ".pickle", ".joblib"}


def test_importance_is_a_share(ranker):
    share = ranker.importance()
    assert set(share) == set(FEATURES)
    assert sum(share.values()) == pytest.approx(1) and min(share.values()) >= 0
