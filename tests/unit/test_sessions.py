"""Sessions: where events are cut, and which part of a history is the current session."""

import numpy as np
import pytest

from handsell.core.units import MINUTE_US
from handsell.data.interactions import Interactions
from handsell.retrieval import sessions
from handsell.retrieval.sessions import cut_sessions, find_current_sessions
from handsell.testing.planted_taste import END, build_requests


def log(*lines: tuple[int, int, int] | tuple[int, int, int, float], n_items=10) -> Interactions:
    """Lines of user, item, minute and, if not 1, weight."""
    user, item, minute, weight = zip(*((*line, 1.0)[:4] for line in lines), strict=True)
    kinds = np.zeros(len(user), np.int8)
    time = END + np.array(minute) * MINUTE_US
    weights = np.array(weight, np.float32)
    return Interactions(
        np.array(user, np.int32), np.array(item, np.int32), kinds, time, weights, max(user) + 1, n_items
    )


def rows(found: sessions.Sessions) -> list[list[int]]:
    return [found.item[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]


def test_a_long_pause_or_another_user_starts_a_session():
    events = log((0, 1, 0), (0, 2, 30), (0, 3, 61), (1, 4, 61), (1, 5, 62))
    found = cut_sessions(events, 30)
    assert rows(found) == [[3], [4, 5], [1, 2]]  # the one that began last comes first; equal ones by user
    assert (found.time - END).tolist() == [61 * MINUTE_US, 61 * MINUTE_US, 0]
    assert found.session_of_event.tolist() == [0, 1, 1, 2, 2]
    assert found.place.tolist() == [0, 0, 1, 0, 1]
    assert rows(found.with_at_least(2)) == [[4, 5], [1, 2]]
    assert rows(found.take_newest(2)) == [[3], [4, 5]]


def test_dislikes_are_not_part_of_a_session():
    assert rows(cut_sessions(log((0, 1, 0), (0, 2, 1, -1.0), (0, 3, 2)), 30)) == [[1, 3]]


def test_a_very_long_session_is_cut(monkeypatch):
    monkeypatch.setattr(sessions, "MAX_EVENTS", 3)
    assert rows(cut_sessions(log(*((0, i, i) for i in range(7))), 30)) == [[6], [3, 4, 5], [0, 1, 2]]


@pytest.mark.parametrize(("gap", "expected"), [(30, [3, 2, 7]), (0.5, [3])])
def test_the_current_session_has_distinct_items_newest_first(gap, expected):
    asked = build_requests([(1, 1.0), (7, 1.0), (3, 1.0), (9, -1.0), (2, 1.0), (3, 1.0)])
    asked.history.time[0, -6] -= 60 * MINUTE_US
    found = find_current_sessions(asked, 10, gap)
    assert found[0][found[0] >= 0].tolist() == expected
    assert found.shape == asked.history.item.shape


def test_the_current_session_can_require_a_minimum_weight():
    asked = build_requests([(1, 3.0), (2, 1.0), (4, 3.0)], [(1, 1.0)])
    found = find_current_sessions(asked, 10, 30, min_weight=2.0)
    assert [row[row >= 0].tolist() for row in found] == [[4, 1], []]
