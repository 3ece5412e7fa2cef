"""Item neighbors, against values computed by hand and by loops."""

import numpy as np
import pytest

from handsell.data.interactions import Interactions
from handsell.retrieval.models import item_knn
from handsell.retrieval.models.item_knn import ItemKNNConfig, fit_item_knn
from handsell.testing.planted_taste import allow_all, build_requests


def interactions(rng, users=30, items=25, events=300) -> Interactions:
    user = np.sort(rng.integers(0, users, events)).astype(np.int32)
    item = rng.integers(0, items, events).astype(np.int32)
    weight = rng.choice([1.0, 2.0, -1.0], events).astype(np.float32)
    return Interactions(user, item, np.zeros(events, np.int8), np.arange(events), weight, users, items)


def test_similarities_equal_a_loop(rng):
    events = interactions(rng)
    model = fit_item_knn(events, ItemKNNConfig(neighbors=25, shrinkage=3.0))
    ratings = np.zeros((events.n_users, events.n_items))
    for u, i, w in zip(events.user, events.item, events.weight, strict=True):
        ratings[u, i] += max(w, 0)
    ratings = np.log1p(ratings)
    for i in range(events.n_items):
        for j in range(events.n_items):
            a, b = ratings[:, i], ratings[:, j]
            expected = 0 if i == j else a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 3.0)
            assert model.neighbors[i, j] == pytest.approx(expected, abs=1e-6)


def test_the_asymmetric_cosine_and_the_linear_filter_equal_dense_products(rng):
    events = interactions(rng)
    ratings = np.log1p(events.positives.matrix().toarray().astype(np.float64))
    square = np.diag(ratings.T @ ratings)
    model = fit_item_knn(events, ItemKNNConfig(neighbors=25, shrinkage=0.0, asymmetry=0.8, user_exponent=1.0))
    busy = ratings.sum(axis=1, keepdims=True)
    expected = (ratings.T / np.where(busy > 0, busy, 1).T) @ ratings / (square[:, None] ** 0.8 * square**0.2)
    np.fill_diagonal(expected, 0)
    assert np.allclose(model.neighbors.toarray(), expected, atol=1e-6)


def test_blocks_of_items_do_not_change_the_neighbors(rng, monkeypatch):
    events = interactions(rng)
    whole = fit_item_knn(events, ItemKNNConfig(neighbors=4))
    monkeypatch.setattr(item_knn, "ITEMS_AT_ONCE", 7)
    assert (fit_item_knn(events, ItemKNNConfig(neighbors=4)).neighbors != whole.neighbors).nnz == 0
    assert whole.neighbors.getnnz(axis=1).max() <= 4


def test_a_dislike_lowers_the_item_and_its_neighbors(rng):
    model = fit_item_knn(interactions(rng), ItemKNNConfig())
    liked, disliked = [(1, 1.0), (2, 1.0)], [(1, 1.0), (2, 1.0), (3, -1.0)]
    asked = build_requests(liked, disliked)
    every = np.tile(np.arange(25), (2, 1))
    before, after = model.score(asked, every)
    near = model.neighbors[3].indices
    assert after[3] < before[3] and (after[near] < before[near]).all()
    items, _ = model.retrieve(asked, 25, allow_all(asked, 25))
    assert 3 not in items[1][items[1] != -1]


def test_only_the_most_recent_events_of_active_users_are_used(monkeypatch, rng):
    monkeypatch.setattr(item_knn, "RECENT_PER_USER", 2)
    events = Interactions(
        np.zeros(4, np.int32), np.arange(4, dtype=np.int32), np.zeros(4, np.int8), np.arange(4),
        np.ones(4, np.float32), 1, 4,
    )  # fmt: skip
    assert fit_item_knn(events, ItemKNNConfig()).touched.tolist() == [False, False, True, True]
