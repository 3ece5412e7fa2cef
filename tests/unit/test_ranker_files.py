"""The ranker on disk, and the errors at loading."""

import json
from dataclasses import replace

import numpy as np
import pytest

from handsell.core.errors import BundleError, TrainingError
from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import fit_xgboost
from handsell.ranking.shards import write_shards
from handsell.ranking.xgboost_ranker import XGBoostRanker
from handsell.testing.planted_ranking import FEATURES, write_groups

SMALL = RankingConfig(trees=30, depth=3, min_child_weight=0.1, early_stopping_rounds=5)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    write_groups(folder / "train", rng, 40)
    write_groups(folder / "validation", rng, 20, first=1000)
    return fit_xgboost(folder / "train", folder / "validation", SMALL, FEATURES)


def test_no_pickle_and_only_these_files(fitted, tmp_path):
    fitted.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "ranker.ubj",
        "features.json",
        "prior.json",
        "without_events.json",
        "calibration.json",
    }
    assert (tmp_path / "ranker.ubj").read_bytes()[:1] == b"{"  # universal binary JSON


def test_a_ranker_keeps_whether_it_orders_requests_without_events(fitted, tmp_path):
    replace(fitted, ranks_without_events=True).save(tmp_path)
    assert XGBoostRanker.load(tmp_path).ranks_without_events
    (tmp_path / "without_events.json").unlink()  # as in a bundle of an earlier version
    assert not XGBoostRanker.load(tmp_path).ranks_without_events


def test_inconsistent_features_are_rejected_by_name(fitted, tmp_path):
    fitted.save(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(FEATURES[:-1]))
    with pytest.raises(BundleError, match=r"the booster expects 5 features, features.json has 4"):
        XGBoostRanker.load(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(["taste", "AGE", *FEATURES[2:]]))
    with pytest.raises(BundleError, match=r"feature 1 to be age, features.json has AGE"):
        XGBoostRanker.load(tmp_path)


@pytest.mark.parametrize("name", ["ranker.ubj", "features.json", "calibration.json"])
@pytest.mark.parametrize("content", [None, b"", b"{nonsense"])
def test_a_missing_or_corrupt_file_is_a_bundle_error(fitted, tmp_path, name, content):
    fitted.save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match="roll back"):
        XGBoostRanker.load(tmp_path)


def test_a_matrix_of_another_width_is_rejected(fitted):
    with pytest.raises(BundleError, match="expects 5 features, got 4 columns"):
        fitted.score(np.zeros((1, 2, 4), np.float32))


def test_only_the_best_trees_are_kept(fitted):
    assert fitted.booster.num_boosted_rounds() < SMALL.trees


def test_fitting_without_examples_raises_an_error_with_advice(tmp_path):
    nothing = write_groups(tmp_path / "some", np.random.default_rng(0), 1)
    empty = type(nothing)(*(getattr(nothing, f)[:0] for f in ("qid", "item", "label", "weight", "x")))
    write_shards(empty, FEATURES, tmp_path / "none", "p", 1)
    with pytest.raises(TrainingError, match="no positive was among the candidates"):
        fit_xgboost(tmp_path / "none", tmp_path / "some", SMALL, FEATURES)
    ranker = fit_xgboost(tmp_path / "some", tmp_path / "none", SMALL, FEATURES)  # no validation: all trees, logistic
    assert ranker.booster.num_boosted_rounds() == SMALL.trees
    assert np.isfinite(ranker.score(nothing.x[None])).all()
