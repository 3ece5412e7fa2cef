"""The fold of events into user states: any split of the log gives the same states; and shifted pasts."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.batches import NONE, Ragged
from handsell.core.units import DAY_US
from handsell.events.fold import fold, move_last_event, truncate
from handsell.events.states import Events, FoldRules, ItemAttributes, UserStates

RULES = FoldRules(np.array([False, True, True]), 4, 28.0 * DAY_US, affinity_size=2, seen_cap=3)
ITEMS = ItemAttributes(
    np.array([0, 0, 1, 2, NONE, 3], np.int32),
    Ragged.from_rows([[0], [0, 1], [1], [], [2], [0, 1, 2]]),
)


def some_events(rng: np.random.Generator, n: int, rows: int = 3) -> Events:
    time = np.sort(rng.choice(60 * DAY_US, n, replace=False)) + DAY_US
    kind = rng.integers(0, 3, n)
    return Events.of(rng.integers(0, rows, n), rng.integers(-1, 8, n), kind, time, np.array([0, 1, -0.5])[kind])


def flat(states) -> dict[str, np.ndarray]:
    """Every array of the states by dotted name."""
    found = {}
    for f in fields(states):
        value = getattr(states, f.name)
        inner = {"": value} if isinstance(value, np.ndarray) else {f".{k}": v for k, v in flat(value).items()}
        found |= {f.name + k: v for k, v in inner.items()}
    return found


def assert_same(one: UserStates, other: UserStates) -> None:
    left, right = flat(one), flat(other)
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 50), max_size=5))
def test_any_partition_of_the_log_gives_the_same_states(seed, cuts):
    events = some_events(np.random.default_rng(seed), 50)
    whole = fold(RULES.empty_states(3), events, ITEMS, RULES)
    states = RULES.empty_states(3)
    edges = [0, *sorted(cuts), 50]
    for begin, end in pairwise(edges):
        states = fold(states, events.where(slice(begin, end)), ITEMS, RULES)
    assert_same(states, whole)


def test_late_events_give_the_state_of_events_in_order(rng):
    events = some_events(rng, 60)
    late = fold(RULES.empty_states(3), events.where(np.arange(60) % 3 != 0), ITEMS, RULES)
    late = fold(late, events.where(np.arange(60) % 3 == 0), ITEMS, RULES)
    assert_same(late, fold(RULES.empty_states(3), events, ITEMS, RULES))


def test_an_event_of_the_log_counts_once(rng):
    events = some_events(rng, 40)
    events = Events(*(getattr(events, f) for f in events.__slots__[:-1]), np.arange(1, 41))
    once = fold(RULES.empty_states(3), events, ITEMS, RULES)
    assert_same(fold(once, events, ITEMS, RULES), once)
    twice_in_one_batch = Events(*(np.concatenate([getattr(events, f)] * 2) for f in events.__slots__))
    assert_same(fold(RULES.empty_states(3), twice_in_one_batch, ITEMS, RULES), once)
    assert once.log_offset.tolist() == [int(events.offset[events.row == u].max()) for u in range(3)]


def test_rows_are_independent(rng):
    events = some_events(rng, 50)
    together = fold(RULES.empty_states(3), events, ITEMS, RULES)
    mine = events.where(events.row == 1)
    alone = Events(np.zeros_like(mine.row), *(getattr(mine, f) for f in mine.__slots__[1:]))
    assert_same(fold(RULES.empty_states(1), alone, ITEMS, RULES), together.take(np.array([1])))


def test_hand_computed_state():
    events = Events.of([0, 0, 0, 0], [0, 1, 1, 7], [1, 2, 0, 1], np.array([1, 8, 8, 8]) * DAY_US, [1, -0.5, 0, 2])
    state = fold(RULES.empty_states(1), events, ITEMS, RULES)
    assert state.state_time[0] == 8 * DAY_US and state.first_time[0] == DAY_US
    assert state.counts[0].tolist() == [1, 2, 1] and state.signs[0].tolist() == [2, 1]
    np.testing.assert_allclose(state.decayed[0, 0], [2 + 2**-7, 2.5, 2 + 2 ** (-7 / 28)])
    np.testing.assert_allclose(state.decayed[0, 1], 0.5)
    assert state.history.item[0].tolist() == [-1, -1, 0, 1]  # neither the impression nor the unknown item 7
    assert state.history.weight[0].tolist() == [0, 0, 1, -0.5]
    assert state.creators.key.row(0).tolist() == [0]
    np.testing.assert_allclose(state.creators.weight.row(0), [2 ** (-7 / 28) - 0.5])
    assert state.tags.key.row(0).tolist() == [0, 1]
    np.testing.assert_allclose(state.tags.weight.row(0), [2 ** (-7 / 28) - 0.5, -0.5])
    assert state.seen.item.row(0).tolist() == [0, 1] and state.seen_total[0] == 2


def test_truncation_keeps_the_strongest_and_the_latest_and_all_totals():
    time = np.arange(1, 6) * DAY_US
    events = Events.of([0] * 5, [0, 2, 3, 5, 4], [1, 1, 2, 1, 1], time, [1, 1, -4, 3, 1])
    state = truncate(fold(RULES.empty_states(1), events, ITEMS, RULES), RULES)
    assert state.creators.key.row(0).tolist() == [2, 3]  # by strength, whichever sign
    assert state.seen.item.row(0).tolist() == [3, 4, 5] and state.seen_total[0] == 5
    assert state.history.item[0].tolist() == [2, 3, 5, 4]


def test_a_repeated_item_has_its_latest_time():
    events = Events.of([0, 0, 0], [1, 2, 1], [1, 1, 1], np.array([1, 2, 3]) * DAY_US, [1, 1, 1])
    state = fold(RULES.empty_states(1), events, ITEMS, RULES)
    assert state.seen.item.row(0).tolist() == [1, 2] and state.seen_total[0] == 2
    assert state.seen.time.row(0).tolist() == [3 * DAY_US, 2 * DAY_US]


@pytest.mark.parametrize("rows", [0, 2])
def test_folding_no_events_changes_nothing(rows):
    start = RULES.empty_states(rows)
    assert_same(fold(start, Events.of([], [], [], [], []), ITEMS, RULES), start)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_move_last_event_equals_folding_shifted_events(seed):
    """The fourth user has no events, so their state does not change."""
    rng = np.random.default_rng(seed)
    events = some_events(rng, 50)
    by = rng.integers(0, 400, 4) * DAY_US + rng.integers(0, DAY_US, 4)
    states = fold(RULES.empty_states(4), events, ITEMS, RULES)
    later = replace(events, time=events.time + by[events.row])
    moved = move_last_event(states, states.state_time + by)
    assert_same(moved, fold(RULES.empty_states(4), later, ITEMS, RULES))
    assert not moved.state_time[3] and not moved.first_time[3]
    assert_same(move_last_event(moved, states.state_time), states)


def test_move_last_event_does_not_change_its_input(rng):
    states = fold(RULES.empty_states(3), some_events(rng, 40), ITEMS, RULES)
    before = {name: array.copy() for name, array in flat(states).items()}
    move_last_event(states, states.state_time + DAY_US)
    for name, array in flat(states).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
