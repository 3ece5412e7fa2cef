"""`ranking.without`: the ranker is trained on fewer features, and served only with the same config."""

from dataclasses import replace

import numpy as np
import pytest
import xgboost

from handsell.bundles.stages import load_ranking
from handsell.config import Config
from handsell.core.errors import BundleError, ConfigError
from handsell.core.funnel import run_local
from handsell.features.config import FeaturesConfig
from handsell.features.matrix import build_matrix, list_features, select_ranker_features
from handsell.features.registry import find_features
from handsell.features.user import list_user_features
from handsell.ranking.calibration import Calibration
from handsell.ranking.xgboost_ranker import XGBoostRanker
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

ITEM_FEATURES = tuple(find_features("item"))
CROSSES = tuple(find_features("cross"))
CONTEXT = tuple(find_features("context"))

SOURCES = ("popularity", "item_knn")


def config(*without: str) -> Config:
    on = {name: {"enabled": name in SOURCES} for name in ("popularity", "item_knn", "als", "two_tower", "content")}
    return Config.model_validate({"name": "test", "retrieval": on, "ranking": {"without": without}})


def test_groups_and_names_are_excluded_and_the_order_is_kept():
    every = list_features(config(), SOURCES)
    assert select_ranker_features(config(), SOURCES) == every
    left = select_ranker_features(config("context", "cross", "src_item_knn_z"), SOURCES)
    assert set(every) - set(left) == {*CONTEXT, *CROSSES, "src_item_knn_z"}
    assert list(left) == [name for name in every if name in left]


def test_unknown_features_are_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"ranking.without names crosses, src_als_rank: .*source, user, item, cross"):
        select_ranker_features(config("crosses", "user", "src_als_rank"), SOURCES)


def test_at_least_one_feature_must_remain():
    with pytest.raises(ConfigError, match="leaves no feature"):
        select_ranker_features(config("source", "user", "item", "cross", "context"), SOURCES)


@pytest.fixture
def few(tmp_path):
    """A ranker of the item features alone, in a bundle's folder."""
    rng, names = np.random.default_rng(3), select_ranker_features(config("source", "user", "cross", "context"), SOURCES)
    x = rng.normal(size=(500, len(names))).astype(np.float32)
    data = xgboost.DMatrix(x, x[:, 1] > 0, feature_names=list(names), nthread=1)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 5)
    XGBoostRanker(names, booster, Calibration.logistic()).save(tmp_path / "ranker")
    return tmp_path


def test_the_ranker_gets_its_columns_of_the_whole_matrix(few):
    rng, setting = np.random.default_rng(4), config("source", "user", "cross", "context")
    shelf = draw_snapshot(rng)
    values = rng.normal(size=(len(shelf), len(ITEM_FEATURES))).astype(np.float32)
    shelf = replace(shelf, values=values, value_names=ITEM_FEATURES)
    asked, found = draw_requests(rng, shelf, 4), draw_candidates(rng, shelf, 4, 30)
    found = replace(
        found, sources=SOURCES, source_rank=found.source_rank[:, :, :2], source_score=found.source_score[:, :, :2]
    )
    users = rng.normal(size=(4, len(list_user_features(setting)))).astype(np.float32)
    asked = replace(asked, profile=replace(asked.profile, features=users))
    stage = load_ranking(few, setting, shelf)
    x = build_matrix(asked, found, stage.items, shelf, setting)
    columns = [list_features(setting, SOURCES).index(name) for name in ITEM_FEATURES]
    expected = np.take_along_axis(found.item, np.argsort(-stage.ranker.raw(x[:, :, columns]), 1, kind="stable"), 1)
    np.testing.assert_array_equal(run_local(stage.rank(asked, found, 30)).item, expected)


def test_a_config_with_other_exclusions_is_rejected(few):
    shelf = draw_snapshot(np.random.default_rng(4))
    with pytest.raises(BundleError, match=r"expects 7 features.*not expected: .*src_item_knn_rank"):
        load_ranking(few, config("user", "cross", "context"), shelf)


def test_item_columns_belong_to_the_item_group():
    told = config("item").model_copy(update={"features": FeaturesConfig(item_columns=("year",))})
    assert not [
        name for name in select_ranker_features(told, SOURCES) if name.startswith("item_") and name != "item_age_days"
    ]
