"""User neighbors and scores, against loops."""

import numpy as np
import pytest

from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.retrieval.like_matrix import build_like_matrix
from handsell.retrieval.models.user_knn import UserKNNConfig, fit_user_knn
from handsell.testing.planted_taste import allow_all, build_requests, plant_blocks

CONFIG = UserKNNConfig(neighbors=4, shrinkage=2.0, item_exponent=0.6, sharpness=1.5, half_life_days=1e9)


def test_scores_equal_a_loop(rng):
    events, _ = plant_blocks(rng, users=40)
    r = build_like_matrix(events).toarray().astype(np.float64)
    degree = r.sum(axis=0)
    weight = np.where(degree > 0, np.maximum(degree, 1e-9) ** -0.6, 0)  # of an item in common: both sides' powers
    given = np.zeros(80)
    given[[0, 4, 8]] = 1.0, 2.0, 1.0
    near = np.array(
        [(given * weight) @ row / (np.sqrt(given**2 @ weight) * np.sqrt(row**2 @ weight) + 2.0) for row in r]
    )
    chosen = np.argsort(-near, kind="stable")[:4]
    expected = sum(near[u] ** 1.5 * r[u] for u in chosen)
    found = fit_user_knn(events, CONFIG).score(build_requests([(0, 1.0), (4, 2.0), (8, 1.0)]), np.arange(80)[None])[0]
    assert np.allclose(found[degree > 0], expected[degree > 0], atol=1e-5)
    assert np.isnan(found[degree == 0]).all()


def test_recent_items_of_a_neighbor_have_more_weight():
    user, item = np.array([0, 0, 0], np.int32), np.array([0, 1, 2], np.int32)
    time = np.array([0, 1, 30]) * DAY_US
    events = Interactions(user, item, np.zeros(3, np.int8), time, np.ones(3, np.float32), 1, 3)
    model = fit_user_knn(events, UserKNNConfig(half_life_days=29.0))
    old, new = model.score(build_requests([(0, 1.0)]), np.array([[1, 2]]))[0]
    assert old == pytest.approx(np.log2(1.5) * new, rel=1e-4)


def test_disliked_items_are_not_returned(rng):
    model = fit_user_knn(plant_blocks(rng)[0], CONFIG.model_copy(update={"neighbors": 50}))
    asked = build_requests([(0, 1.0), (4, 1.0)], [(0, 1.0), (4, 1.0), (8, -100.0)])
    items, _ = model.retrieve(asked, 80, allow_all(asked, 80))
    assert 8 in items[0] and 8 not in items[1]
