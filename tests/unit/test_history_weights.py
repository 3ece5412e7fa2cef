"""Weights of history items: summed by item and decayed from the newest event."""

import numpy as np

from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.retrieval.history_weights import HistoryWeights, build_history_matrix, weigh_history
from handsell.retrieval.models.history import HistoryConfig, HistoryRetriever, fit_history
from handsell.testing.planted_taste import END, build_requests


def aged(history, ages_days):
    """A request whose events happened these days before its newest one."""
    asked = build_requests(history)
    asked.history.time[0, -len(history) :] = END - DAY_US - (np.array(ages_days) * DAY_US).astype(np.int64)
    return asked


def test_repeated_items_are_summed_and_age_halves():
    item, weight = weigh_history(
        aged([(3, 1.0), (5, 2.0), (3, 1.0), (6, -1.0)], [14, 7, 0, 0]), HistoryWeights(7.0), 10
    )
    table = build_history_matrix(item, weight, 10).toarray()[0]
    assert np.allclose(table[[3, 5, 6]], [1 + 1 / 4, 2 / 2, -1])
    assert np.count_nonzero(table) == 3


def test_a_long_absence_does_not_change_the_weights():
    asked = aged([(3, 1.0)], [0])
    asked.history.time[0, -1] -= 4000 * DAY_US
    _, weight = weigh_history(asked, HistoryWeights(1.0), 10)
    assert weight.max() == 1.0


def test_later_likes_decay_an_event_and_dislikes_can_be_reduced():
    asked = aged([(3, 1.0), (5, -1.0), (6, 1.0), (7, 2.0)], [0, 0, 0, 0])
    item, weight = weigh_history(asked, HistoryWeights(1e9, half_life_events=1.0, dislikes=0.5), 10)
    table = build_history_matrix(item, weight, 10).toarray()[0]
    assert np.allclose(table[[3, 5, 6, 7]], [1 / 4, -0.5 / 4, 1 / 2, 2])


def test_weight_exponent_0_gives_all_likes_the_same_weight():
    asked = aged([(3, 4.0), (5, -0.25), (6, 1.0)], [0, 0, 0])
    for exponent, expected in ((0.0, [1, -1, 1]), (0.5, [2, -0.5, 1])):
        item, weight = weigh_history(asked, HistoryWeights(1e9, weight_exponent=exponent), 10)
        assert np.allclose(build_history_matrix(item, weight, 10).toarray()[0][[3, 5, 6]], expected)


def test_an_empty_history_has_no_weights():
    for length in (0, 5):
        item, weight = weigh_history(build_requests([], length=length), HistoryWeights(7.0), 10)
        assert item.shape == weight.shape == (1, length) and not weight.any()


def test_the_history_retriever_returns_liked_items_and_no_disliked_ones():
    nobody = Interactions(*(np.zeros(0, t) for t in ("i4", "i4", "i1", "i8", "f4")), n_users=1, n_items=10)
    model = fit_history(nobody, HistoryConfig(half_life_days=7))
    asked = aged([(4, 1.0), (2, 1.0), (7, 1.0), (7, -2.0)], [7, 0, 0, 0])
    items, scores = model.retrieve(asked, 5, np.ones((1, 10), bool))
    assert items.tolist() == [[2, 4, -1, -1, -1]]
    assert np.allclose(scores[0, :2], [1.0, 0.5])


def test_items_with_many_repeats_rank_first():
    users, items = [0, 0, 0, 1, 1, 1, 2], [3, 3, 3, 3, 3, 5, 5]  # 3 is taken again, 5 never, 8 by nobody
    log = Interactions(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.zeros(7, np.int8),
        np.arange(7),
        np.ones(7, np.float32),
        n_users=3,
        n_items=10,
    )
    asked = build_requests([(8, 1.0), (5, 1.0), (3, 1.0)])
    everything = np.ones((1, 10), bool)
    order, _ = fit_history(log, HistoryConfig()).retrieve(asked, 3, everything)
    assert order.tolist() == [[3, 5, 8]]
    plain = fit_history(log, HistoryConfig(repeat_exponent=0, popularity_exponent=0))
    np.testing.assert_allclose(plain.retrieve(asked, 3, everything)[1], 1.0, rtol=1e-3)


def test_the_history_retriever_saves_changed_history_weights(tmp_path):
    log = Interactions(*(np.zeros(0, t) for t in ("i4", "i4", "i1", "i8", "f4")), n_users=1, n_items=10)
    model = fit_history(log, HistoryConfig()).with_history_weights(half_life_days=3.0, repeat_exponent=0.5)
    model.save(tmp_path)
    loaded = HistoryRetriever.load(tmp_path)
    assert (loaded.weights.half_life_days, loaded.repeat_exponent, loaded.popularity_exponent) == (3.0, 0.5, 0.2)
