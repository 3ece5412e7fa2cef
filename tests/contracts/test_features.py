"""Every registered feature keeps the contract of handsell.testing.feature_contract."""

from handsell.features.registry import find_features
from handsell.testing.feature_contract import GROUPS, FeatureContract


class TestFeatures(FeatureContract):
    names = tuple(name for group in GROUPS for name in find_features(group))
