"""The contract tests of features find planted errors."""

import numpy as np
import pytest

from handsell.features.registry import feature
from handsell.testing.feature_contract import FeatureContract


def is_infinite(pairs):
    """An affinity of 0 in the denominator."""
    with np.errstate(divide="ignore"):
        return 1 / pairs.same_item.count


def depends_on_the_batch(pairs):
    """Compares a request with the others of its batch."""
    return pairs.tag_count - pairs.tag_count.mean() + pairs.same_creator.count.mean()


def writes_to_its_input(pairs):
    """Fills the history in place."""
    pairs.requests.history.weight[:] = 1
    return np.zeros(pairs.item.shape)


def has_one_value_per_request(pairs):
    """Lacks the axis of candidates."""
    return pairs.requests.history.weight.sum(axis=1)


def ignores_its_default(pairs):
    """An unknown item has 1 here, not 0."""
    return 1 / np.maximum(pairs.tag_count, 1)


@pytest.mark.parametrize(
    ("value", "test"),
    [
        (is_infinite, FeatureContract.test_it_is_finite_unless_its_default_is_nan),
        (depends_on_the_batch, FeatureContract.test_a_batch_gives_what_single_requests_give),
        (writes_to_its_input, FeatureContract.test_it_does_not_change_its_input),
        (has_one_value_per_request, FeatureContract.test_it_returns_one_number_for_each_input),
        (ignores_its_default, FeatureContract.test_an_unknown_user_and_an_unknown_item_give_the_default),
    ],
    ids=lambda given: given.__name__,
)
def test_a_planted_error_is_found(value, test):
    planted = feature("planted", group="cross", default=0.0)(value)
    with pytest.raises(AssertionError):
        test(FeatureContract(), planted, 0)
