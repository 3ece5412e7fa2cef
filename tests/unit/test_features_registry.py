"""What `@feature` accepts, and the order and defaults of registered features."""

import numpy as np
import pytest

from feature_world import write_tiny_config
from handsell.core.errors import ConfigError
from handsell.features.item import get_untouched_values, list_activity_windows
from handsell.features.registry import feature, find_features
from handsell.features.views import build_views, list_cross_columns


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Too Long", {"group": "user"}, "'Too Long': expected a name of lower-case letters"),
        ("x", {"group": "users"}, "expected a group of user, item, cross, context, got 'users'"),
        ("x", {"group": "user", "on_demand": True}, "only cross features are on_demand"),
        ("x", {"group": "cross", "windows_days": (7,)}, "only item features have windows_days"),
    ],
)
def test_a_wrong_registration_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        feature(name, **options)


def test_the_schema_of_feast_follows_from_the_registrations(tmp_path):
    assert build_views(write_tiny_config(tmp_path))["item_activity"].names == tuple(find_features("item"))
    assert [name for name, _ in list_cross_columns()] == [n for n, f in find_features("cross").items() if f.on_demand]


def test_item_defaults_and_windows_follow_from_the_registrations():
    expected = [found.default for found in find_features("item").values()]
    np.testing.assert_array_equal(get_untouched_values(), np.array(expected, np.float32))
    assert list_activity_windows() == (1, 7, 28)
