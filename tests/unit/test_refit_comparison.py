"""Holdout model and refit: shares of slates and drift of features, by hand."""

import numpy as np
import pytest

from handsell.core.errors import BundleError
from handsell.jobs.train.refit_comparison import RefitComparison, compute_drift, compute_overlap, require_items


def test_overlap_is_the_share_of_the_refits_items():
    refit = np.array([[1, 2, 3, -1], [4, 5, -1, -1], [-1, -1, -1, -1]])
    holdout = np.array([[3, 1, 9, 8], [6, 7, 8, 9], [-1, -1, -1, -1]])
    assert compute_overlap(refit, holdout) == pytest.approx((2 / 3 + 0) / 2)


def test_a_slate_may_be_empty_where_that_of_the_holdout_is_and_not_all_are():
    empty, full = np.full((1, 3), -1), np.array([[4, 5, -1]])
    require_items("b", np.concatenate([empty, full]), np.concatenate([empty, full]))
    for new, old in ((np.concatenate([empty, full]), np.concatenate([full, full])), (empty, empty)):
        with pytest.raises(BundleError, match=r"bundle b: expected items .* got 1 empty slates"):
            require_items("b", new, old)


def test_drift_is_in_standard_deviations_of_the_holdout_and_skips_missing_features(rng):
    before = rng.normal([0, 10, 5, 1], [1, 4, 0, 1], (50_000, 4))
    after = rng.normal([0, 14, 9, 1], [1, 1, 1, 1], (40_000, 4))
    before[:, 3], before[::2, 1], after[::3, 1] = np.nan, np.nan, np.nan
    drift = compute_drift(before, after, ("still", "moved", "constant", "missing"))
    assert set(drift) == {"still", "moved"}
    assert drift["moved"] == pytest.approx(1.0, abs=0.03)
    assert drift["still"] < 0.03


def test_only_a_large_difference_is_a_warning():
    assert RefitComparison(0.8, {"a": 0.1}).warnings == ()
    few, moved = RefitComparison(0.3, {"a": 0.1, "b": 2.0}).warnings
    assert "30%" in few and "b by 2.0" in moved and "a by" not in moved
