"""Twin and refit: shares of slates and drift of features, by hand."""

import numpy as np
import pytest

from handsell.jobs.train.holdout import HoldoutComparison, drift, shared


def test_shared_items_count_against_what_the_refit_gave():
    ours = np.array([[1, 2, 3, -1], [4, 5, -1, -1]])
    twin = np.array([[3, 1, 9, 8], [6, 7, 8, 9]])
    assert shared(ours, twin) == pytest.approx((2 / 3 + 0) / 2)


def test_drift_is_in_standard_deviations_of_the_twin_and_skips_what_is_missing(rng):
    before = rng.normal([0, 10, 5, 1], [1, 4, 0, 1], (50_000, 4))
    after = rng.normal([0, 14, 9, 1], [1, 1, 1, 1], (40_000, 4))
    before[:, 3], before[::2, 1], after[::3, 1] = np.nan, np.nan, np.nan
    moved = drift(before, after, ("still", "moved", "constant", "missing"))
    assert set(moved) == {"still", "moved"}
    assert moved["moved"] == pytest.approx(1.0, abs=0.03)
    assert moved["still"] < 0.03


def test_only_what_strays_far_is_told():
    assert HoldoutComparison(0.8, {"a": 0.1}).warnings == ()
    few, moved = HoldoutComparison(0.3, {"a": 0.1, "b": 2.0}).warnings
    assert "30%" in few and "b by 2.0" in moved and "a by" not in moved
