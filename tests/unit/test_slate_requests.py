"""Requests from slates: what the user did within hours of a slate, or later with its id, never beyond the window."""

import numpy as np
import pytest

from handsell.core.batches import NONE
from handsell.core.units import HOUR_US
from handsell.data.interactions import Interactions
from handsell.data.slate_requests import build_slate_requests

BEGIN, END = 100, 200  # hours of the window
SHOWN = 0.0  # weight of a shown item


def build(rows: list[tuple[int, int, float, float, int]], outcome_hours: float = 10):
    """Build requests from (user, item, hour, weight, slate); a weight of 0 is a shown item."""
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    user, item, hour, weight, slate = (np.array(column) for column in zip(*rows, strict=True))
    events = Interactions(
        user.astype(np.int32), item.astype(np.int32), np.zeros(len(rows), np.int8),
        np.rint(hour * HOUR_US).astype(np.int64), weight.astype(np.float32), int(user.max()) + 1, 50,
    )  # fmt: skip
    about = np.arange(len(rows)).astype(np.int16), np.full(len(rows), 0.5, np.float32)
    return build_slate_requests(
        events, weight != SHOWN, about, slate.astype(np.int64), BEGIN * HOUR_US, END * HOUR_US,
        int(outcome_hours * HOUR_US),
    )  # fmt: skip


def describe(found) -> list[tuple]:
    """Requests as (user, hour, {item: gain}, shown items), by user and time."""
    every = [
        (
            int(found.user[r]), float(found.time[r] / HOUR_US),
            dict(zip(found.acted.row(r).tolist(), found.gain.row(r).tolist(), strict=True)),
            found.shown.row(r).tolist(),
        )
        for r in range(len(found))
    ]  # fmt: skip
    return sorted(every, key=lambda one: one[:2])


SLATE = [(1, 5, 110.0, SHOWN, 7), (1, 6, 110.0, SHOWN, 7)]


def test_a_slate_is_a_request_with_what_followed_within_hours():
    found = build(
        [*SLATE, (1, 5, 111, 2.0, NONE), (1, 9, 119, 1.0, NONE), (1, 8, 121, 1.0, NONE), (1, 4, 109, 1, NONE)]
    )
    assert describe(found) == [(1, 110.0, {5: 2.0, 9: 1.0}, [5, 6])]
    assert len(found.position.values) == len(found.propensity.values) == 2


def test_a_later_interaction_that_names_the_slate_counts():
    found = build([*SLATE, (1, 6, 150, 1.0, 7), (1, 8, 151, 1.0, NONE)])
    assert describe(found) == [(1, 110.0, {6: 1.0}, [5, 6])]


def test_an_interaction_counts_once_even_if_it_is_near_and_names_the_slate():
    assert describe(build([*SLATE, (1, 6, 111, 1.0, 7)])) == [(1, 110.0, {6: 1.0}, [5, 6])]


def test_outcomes_and_slates_stay_in_the_window():
    assert not len(build([*SLATE, (1, 6, 200, 1.0, 7)])), "the interaction is in the next window"
    assert not len(build([(1, 5, 99.0, SHOWN, 7), (1, 5, 101, 1.0, 7)])), "the slate is in the window before"
    assert not len(build([(1, 5, 201.0, SHOWN, 7), (1, 5, 202, 1.0, 7)]))


@pytest.mark.parametrize(
    "row", [(2, 6, 111, 1.0, 7), (1, 6, 109, 1.0, 7), (1, 6, 111, -1.0, 7), (1, 6, 121, 1.0, NONE), (1, 6, 121, 1.0, 3)]
)
def test_other_users_earlier_events_refusals_and_unrelated_events_make_no_request(row):
    assert not len(build([*SLATE, row]))


def test_refusals_are_part_of_the_outcome_and_cancel_out():
    found = build([*SLATE, (1, 6, 111, 1.0, 7), (1, 5, 112, -1.0, NONE)])
    assert describe(found) == [(1, 110.0, {5: -1.0, 6: 1.0}, [5, 6])]
    assert not len(build([*SLATE, (1, 6, 111, 1.0, 7), (1, 6, 112, -1.0, NONE)]))


def test_shown_items_without_a_slate_make_no_request():
    assert not len(build([(1, 5, 110.0, SHOWN, NONE), (1, 5, 111, 1.0, NONE)]))


def test_many_slates_equal_a_plain_computation(rng):
    rows, shown = [], {}
    for slate in range(300):
        user, hour = int(rng.integers(12)), float(rng.integers(90_000, 210_000)) / 1_000
        shown[slate] = (user, hour, rng.choice(50, 4, replace=False).tolist())
        rows += [(user, item, hour, SHOWN, slate) for item in shown[slate][2]]
    acts = [
        (int(rng.integers(12)), int(rng.integers(50)), float(rng.integers(90_000, 210_000)) / 1_000 + 0.0005,
         float(rng.choice([1.0, 2.0, -1.0])), int(rng.integers(300)) if rng.random() < 0.3 else NONE)
        for _ in range(2_000)
    ]  # fmt: skip
    expected = []
    for slate, (user, hour, items) in shown.items():
        gains: dict[int, float] = {}
        for who, item, at, weight, named in acts:
            near = hour <= at < hour + 10 or (named == slate and at >= hour)
            if who == user and BEGIN <= at < END and near:
                gains[item] = gains.get(item, 0.0) + weight
        if BEGIN <= hour < END and any(gain > 0 for gain in gains.values()):
            expected.append((user, hour, gains, items))
    got = describe(build([*rows, *acts]))
    assert 100 < len(got) == len(expected)
    for one, other in zip(got, sorted(expected, key=lambda one: one[:2]), strict=True):
        assert one[:3] == (*other[:2], other[2]) and sorted(one[3]) == sorted(other[3])
