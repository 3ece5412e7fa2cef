"""The features of the package keep the contract of features, and have the values that a loop computes."""

import numpy as np
import pytest

from handsell.core.units import DAY_US
from handsell.features.registry import find_features
from handsell.testing.feature_contract import ITEMS, NOW, USERS, FeatureCase, FeatureContract


class TestShopFeatures(FeatureContract):
    names = ("user_evening_share", "creator_of_last_item")


@pytest.fixture
def case():
    return FeatureCase.draw(7)


def interactions(case, user):
    """The (time, item) of a user's events that are no impressions."""
    log = case.before(NOW)
    return sorted((t, i) for u, t, i, k in zip(log.row, log.time, log.item, log.type, strict=True) if u == user and k)


def test_evening_share_counts_the_last_quarter_of_the_day(case):
    got = case.compute(find_features("user")["user_evening_share"])
    for user in range(USERS):
        hours = [time % DAY_US / DAY_US * 24 for time, _ in interactions(case, user)]
        expected = np.mean([hour >= 18 for hour in hours]) if hours else np.nan
        np.testing.assert_allclose(got[user], expected, rtol=1e-6)


def test_creator_of_last_item_is_that_of_the_latest_interaction(case):
    got = case.compute(find_features("cross")["creator_of_last_item"])
    creator = case.catalog.creator
    for user in range(USERS):
        past = interactions(case, user)
        last = creator[past[-1][1]] if past else -1
        assert got[user].tolist() == [float(last >= 0 and creator[item] == last) for item in range(ITEMS)]
    assert got.any()
