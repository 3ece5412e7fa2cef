"""Popularity and trending, against values computed by hand."""

import numpy as np
import pytest

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.interactions import Interactions
from handsell.retrieval.models import popularity
from handsell.retrieval.models.popularity import Popularity, PopularityConfig, find_context, fit_popularity
from handsell.retrieval.models.trending import TrendingConfig, fit_trending
from handsell.testing.planted_taste import END, allow_all, build_requests


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
    items, scores = model.retrieve(build_requests([]), 4, np.ones((1, 4), bool))
    assert items.tolist() == [[1, 0, -1, -1]]
    assert scores[0, :2] == pytest.approx([1.5, 1.0])


def test_scanning_the_ranking_finds_what_a_full_sort_finds(rng, monkeypatch):
    monkeypatch.setattr(popularity, "FIRST_SCAN", 4)
    model = Popularity(rng.integers(0, 30, 500).astype(np.float32))
    asked = build_requests([])
    eligible = allow_all(asked, 500)
    eligible[:, model.ranking[:350]] = False
    items, _ = model.retrieve(asked, 5, eligible)
    expected = sorted(np.flatnonzero(eligible[0] & (model.popularity > 0)), key=lambda i: (-model.popularity[i], i))
    assert items[0].tolist() == expected[:5]


def weekly(rng, nightly: float, users=300, n_items=20) -> Interactions:
    """Everybody likes a thing of the first half at noon and one at night, of the second half with chance `nightly`."""
    at_noon = rng.integers(0, n_items // 2, users)
    at_night = rng.integers(0, n_items // 2, users) + n_items // 2 * (rng.random(users) < nightly)
    day = END - DAY_US * rng.integers(1, 20, users)
    item = np.stack([at_noon, at_night], 1).ravel().astype(np.int32)
    time = np.stack([day + DAY_US // 2, day + DAY_US // 2 + 10 * HOUR_US], 1).ravel()
    user = np.repeat(np.arange(users, dtype=np.int32), 2)
    ones = np.ones(2 * users, np.float32)
    return Interactions(user, item, np.zeros(2 * users, np.int8), time, ones, users, n_items)


def test_popularity_depends_on_the_time_where_the_events_show_it(rng):
    events = weekly(rng, nightly=0.9)
    model = fit_popularity(events, PopularityConfig(half_life_days=1e6))
    noon, night = (build_requests([], time=END - END % DAY_US + hour * HOUR_US) for hour in (13, 22))
    for asked, first in ((noon, 0), (night, 10)):
        items, scores = model.retrieve(asked, 5, allow_all(asked, 20))
        assert (items // 10 * 10 == first).all()
        assert np.array_equal(model.score(asked, items), scores)
    both = Popularity(model.popularity)
    assert set(both.retrieve(noon, 20, allow_all(noon, 20))[0][0]) == set(range(20))


def test_contexts_that_differ_by_chance_only_get_no_lift(rng):
    assert fit_popularity(weekly(rng, nightly=0.0), PopularityConfig()).lift is None
    assert fit_popularity(weekly(rng, nightly=0.9), PopularityConfig(by_context=False)).lift is None


def test_a_context_of_few_events_is_close_to_the_overall_popularity(rng):
    share = rng.dirichlet(np.full(200, 5.0))
    count = np.stack([rng.multinomial(n, rng.dirichlet(100 * share)) for n in (5000, 5000, 5000, 5)])
    count = np.c_[count, np.zeros(4, int)]
    lift, whole = popularity.estimate_lifts(count), count.sum(axis=0) / count.sum()
    assert lift is not None and (lift[:, -1] == 1).all(), "of an item that nobody liked nothing is known"
    smoothed = lift * whole
    assert np.allclose(smoothed.sum(axis=1), 1)
    moved = np.abs(smoothed - whole).sum(axis=1) / 2  # total variation
    assert moved[3] < 0.1 < moved[:3].min()
    assert np.allclose(smoothed[0], count[0] / 5000, atol=0.002), "a context of many events speaks for itself"


def test_the_smoothing_finds_the_prior_that_was_planted(rng):
    share = rng.dirichlet(np.full(200, 5.0))
    for planted in (30.0, 300.0):
        count = np.stack([rng.multinomial(5000, rng.dirichlet(planted * share)) for _ in range(12)])
        lift = popularity.estimate_lifts(count)
        by_item = count.sum(axis=0) / count.sum()
        c, i = np.unravel_index(np.argmax(count), count.shape)
        # (count + m p) / (5000 + m) = lift p, solved for m
        found = (count[c, i] - 5000 * lift[c, i] * by_item[i]) / (by_item[i] * (lift[c, i] - 1))
        assert found == pytest.approx(planted, rel=0.7)


def test_parts_of_the_day_and_the_weekend_are_contexts():
    thursday = 0  # the epoch
    hours = np.array([0, 3.99, 4, 23.99]) * HOUR_US
    assert find_context(thursday + hours.astype(np.int64)).tolist() == [0, 0, 1, 5]
    assert find_context(np.array([2, 3, 4]) * DAY_US).tolist() == [6, 6, 0]


def test_trending_items_have_more_likes_than_expected():
    # item 0: a like a day for ten days; item 1: three likes today; item 2: one like, ten days ago
    age = np.r_[np.arange(10), 0, 0, 0, 10]
    item = np.r_[np.zeros(10), 1, 1, 1, 2].astype(np.int32)
    n = len(item)
    order = np.arange(n, dtype=np.int32)
    events = Interactions(order, item, np.zeros(n, np.int8), END - age * DAY_US, np.ones(n, np.float32), n, 4)
    model = fit_trending(events, TrendingConfig(half_life_days=1, long_half_life_days=10, prior=1.0))
    short = np.array([(0.5 ** np.arange(10)).sum(), 3, 0.5**10, 0])
    long = np.array([(0.5 ** (np.arange(10) / 10)).sum(), 3, 0.5, 0])
    expected = long * short.sum() / long.sum()
    assert np.allclose(model.popularity, np.maximum((short - expected) / np.sqrt(expected + 1), 0))
    assert model.retrieve(build_requests([]), 3, np.ones((1, 4), bool))[0].tolist() == [[1, -1, -1]]
