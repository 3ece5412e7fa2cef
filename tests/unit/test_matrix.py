"""The feature matrix: names match columns, source features are standardized, picking does not change them."""

from dataclasses import replace

import numpy as np
import pytest

from feature_world import write_tiny_config
from handsell.core.errors import FeatureError
from handsell.features.crosses import compute_crosses
from handsell.features.item import list_item_features
from handsell.features.matrix import SnapshotValues, build_matrix, group_features, list_features
from handsell.features.registry import find_features
from handsell.features.user import list_user_features
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

CROSSES = tuple(find_features("cross"))

SOURCES = ("popularity", "item_knn", "content")


@pytest.fixture
def case(rng, tmp_path):
    config = write_tiny_config(tmp_path)
    shelf = draw_snapshot(rng)
    names = list_item_features(config)
    shelf = replace(shelf, values=rng.normal(size=(len(shelf), len(names))).astype(np.float32), value_names=names)
    asked = draw_requests(rng, shelf)
    users = rng.normal(size=(4, len(list_user_features(config)))).astype(np.float32)
    asked = replace(asked, profile=replace(asked.profile, features=users))
    return config, shelf, asked, draw_candidates(rng, shelf, pad=3)


def build(case, **changed):
    config, shelf, asked, found = case
    return build_matrix(asked, changed.get("found", found), SnapshotValues(shelf), shelf, config, changed.get("pick"))


def test_columns_stand_where_their_names_say(case):
    config, shelf, asked, found = case
    x, names = build(case), list_features(config, SOURCES)
    assert x.shape == (4, 50, len(names)) and x.dtype == np.float32 and x.flags.c_contiguous
    assert len(set(names)) == len(names)
    at = {name: x[:, :, f] for f, name in enumerate(names)}
    np.testing.assert_array_equal(at["src_item_knn_rank"], found.source_rank[:, :, 1])
    np.testing.assert_array_equal(at["src_fused"], found.fused)
    np.testing.assert_array_equal(at["src_count"], np.isfinite(found.source_rank).sum(axis=2))
    np.testing.assert_array_equal(at["user_age"], np.repeat(asked.profile.features[:, -1:], 50, axis=1))
    np.testing.assert_array_equal(at["item_energy"][:, :47], shelf.values[found.item[:, :47], -1])
    assert np.isnan(at["item_energy"][:, 47:]).all()
    cross = compute_crosses(asked, found.item, shelf)
    for f, name in enumerate(CROSSES):
        np.testing.assert_array_equal(at[name], cross[:, :, f])
    np.testing.assert_allclose(at["hour_cos"], 1.0)  # midnight


def test_source_scores_are_standardised_within_the_request(case):
    names = list_features(case[0], SOURCES)
    x = build(case)
    scaled = replace(case[3], source_score=case[3].source_score * 1000 - 7)
    np.testing.assert_allclose(build(case, found=scaled), x, rtol=1e-3, atol=1e-4)
    for source in SOURCES:
        z = x[:, :, names.index(f"src_{source}_z")]
        np.testing.assert_allclose(np.nanmean(z, axis=1), 0, atol=1e-5)
        np.testing.assert_allclose(np.nanstd(z, axis=1), 1, rtol=1e-4)
        missing = np.isnan(case[3].source_score[:, :, SOURCES.index(source)])
        np.testing.assert_array_equal(np.isnan(z), missing)


def test_equal_scores_are_zero_not_nan(case):
    found = case[3]
    flat = replace(found, source_score=np.where(np.isnan(found.source_score), np.nan, np.float32(0.3)))
    z = build(case, found=flat)[:, :, len(SOURCES) : 2 * len(SOURCES)]
    np.testing.assert_allclose(z[np.isfinite(z)], 0, atol=1e-6)


def test_picked_columns_keep_their_source_features(case, rng):
    pick = np.stack([rng.permutation(50)[:9] for _ in range(4)])
    np.testing.assert_array_equal(build(case, pick=pick), np.take_along_axis(build(case), pick[:, :, None], axis=1))


def test_groups_are_the_names(case):
    groups = group_features(case[0], SOURCES)
    assert list(groups) == ["source", "user", "item", "cross", "context"]
    assert sum(map(len, groups.values())) == len(list_features(case[0], SOURCES))


def test_a_config_that_disagrees_with_the_snapshot_is_named(case):
    config, shelf, asked, found = case
    less = replace(shelf, values=shelf.values[:, :-1], value_names=shelf.value_names[:-1])
    with pytest.raises(FeatureError, match=r"expected 8 item values .*item_energy.*got 7"):
        build_matrix(asked, found, SnapshotValues(less), less, config)
