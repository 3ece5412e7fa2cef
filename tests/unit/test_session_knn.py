"""Session neighbors, against values computed by hand."""

import numpy as np
import pytest
from test_sessions import log

from handsell.retrieval.models import session_knn
from handsell.retrieval.models.session_knn import SessionKNNConfig, fit_session_knn
from handsell.testing.planted_taste import allow_all, build_requests

PLAIN = {
    "position_half_life": 1.0, "last_boost": 0.0, "idf_exponent": 0.0, "half_life_days": 1e9, "length_exponent": 0.0,
    "distance_half_life": 1.0, "backward": 0.5, "repeat": 0.25, "popularity_exponent": 0.0,
}  # fmt: skip
DAY = 24 * 60


def fitted(*lines, **options):
    return fit_session_knn(log(*lines), SessionKNNConfig(**{**PLAIN, **options}))


def scores(model, *history) -> list[float]:
    asked = build_requests([(item, 1.0) for item in history])
    return model.score(asked, np.arange(model.n_items)[None])[0].tolist()


SESSIONS = ((0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 10), (1, 4, 11))


def test_scores_decrease_with_the_distance_to_the_shared_item():
    # both sessions hold item 1, the last of the history: likeness 1 each
    assert scores(fitted(*SESSIONS), 1)[:5] == [0.5, 0.25 + 0.25, 1.0, 0.5, 1.0]


def test_earlier_items_of_the_session_have_less_weight():
    # user 0's session shares 0 (age 0) and 1 (age 1): likeness 1.5, measured from 0; user 1's shares 1: likeness 0.5
    found = scores(fitted(*SESSIONS), 1, 0)
    assert found[:5] == pytest.approx([1.5 * 0.25, 1.5 + 0.5 * 0.25, 1.5 * 0.5, 1.5 * 0.25, 0.5])


def test_each_setting_has_its_effect():
    assert scores(fitted(*SESSIONS, last_boost=1.0), 1)[2] == 2.0
    assert scores(fitted(*SESSIONS, length_exponent=1.0), 1)[2:5] == pytest.approx([1 / 4, 1 / 8, 1 / 2])
    assert scores(fitted(*SESSIONS, idf_exponent=1.0), 1)[2] == pytest.approx(np.log1p(2 / 2))
    late = fitted(*SESSIONS[:4], (1, 1, DAY), (1, 4, DAY), half_life_days=1.0)
    assert scores(late, 1)[2:5] == pytest.approx([0.5, 0.25, 1.0])  # the older session is a day older
    rarer = scores(fitted(*SESSIONS, popularity_exponent=1.0), 1)
    assert rarer[1] / rarer[2] == pytest.approx(0.5 * 11 / 12)  # item 1 is in two sessions, ten are added to both


def test_only_the_nearest_sessions_are_used_and_ties_prefer_newer_ones():
    assert scores(fitted(*SESSIONS, neighbors=1), 1)[2:5] == [0.0, 0.0, 1.0]
    assert scores(fitted(*SESSIONS, sessions_per_item=1), 1)[2:5] == [0.0, 0.0, 1.0]
    assert np.isnan(scores(fitted(*SESSIONS, sessions=1), 1)[2])  # item 2 is not in the newest session


def test_the_latest_shared_item_is_found_among_many():
    """Distances to a session with all items of a long history are measured from the last item."""
    many = session_knn.LAST_ITEMS
    lines = [(0, i, i) for i in range(many)]
    model = fit_session_knn(log(*lines, n_items=many), SessionKNNConfig(**{**PLAIN, "distance_half_life": 0.1}))
    for last in (0, 7, many - 1):
        history = [i for i in range(many) if i != last] + [last]
        found = np.array(scores(model, *history))
        near = [i for i in (last - 1, last + 1) if 0 <= i < many]
        assert set(np.argsort(-found)[: len(near) + 1]) == {last, *near}


def test_many_requests_are_processed_in_blocks(monkeypatch, rng):
    lines = [(u, int(i), 100 * u + n) for u in range(40) for n, i in enumerate(rng.integers(0, 10, 5))]
    model = fitted(*lines)
    asked = build_requests(*([(int(i), 1.0) for i in rng.integers(0, 10, 3)] for _ in range(9)))
    whole = model.retrieve(asked, 5, allow_all(asked, 10))
    monkeypatch.setattr(session_knn, "ROWS_AT_ONCE", 2)
    for a, b in zip(whole, model.retrieve(asked, 5, allow_all(asked, 10)), strict=True):
        assert np.array_equal(a, b)
