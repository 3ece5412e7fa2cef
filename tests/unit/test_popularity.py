"""Popularity by hand: event weights halved by age."""

import numpy as np
import pytest

from handsell.core.config.retrieval import PopularityConfig
from handsell.data.interactions import Interactions
from handsell.retrieval import popularity
from handsell.retrieval.popularity import Popularity, fit_popularity
from planted_taste import DAY_US, END, everything, request


def test_weights_halve_with_age_and_dislikes_do_not_count():
    events = Interactions(
        user=np.array([0, 0, 1, 1], np.int32),
        item=np.array([0, 1, 1, 2], np.int32),
        type=np.zeros(4, np.int8),
        time=END - DAY_US * np.array([0, 7, 14, 0]),
        weight=np.array([1.0, 2.0, 2.0, -3.0], np.float32),
        n_users=2,
        n_items=4,
    )
    model = fit_popularity(events, PopularityConfig(half_life_days=7))
    assert np.allclose(model.popularity, [1.0, 2 / 2 + 2 / 4, 0, 0])
    items, scores = model.retrieve(request([]), 4, np.ones((1, 4), bool))
    assert items.tolist() == [[1, 0, -1, -1]]
    assert scores[0, :2] == pytest.approx([1.5, 1.0])


def test_looking_further_down_finds_what_a_full_sort_finds(rng, monkeypatch):
    monkeypatch.setattr(popularity, "FIRST_LOOK", 4)
    model = Popularity(rng.integers(0, 30, 500).astype(np.float32))
    asked = request([])
    eligible = everything(asked, 500)
    eligible[:, model.ranking[:350]] = False
    items, _ = model.retrieve(asked, 5, eligible)
    expected = sorted(np.flatnonzero(eligible[0] & (model.popularity > 0)), key=lambda i: (-model.popularity[i], i))
    assert items[0].tolist() == expected[:5]
