"""State → stored row → Requests: nothing is lost but what truncation cuts, and new events fold in."""

from dataclasses import fields, is_dataclass

import numpy as np
import pyarrow as pa
import pytest

from feature_world import START, write_tiny_config
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import Ragged
from handsell.core.errors import FeatureError
from handsell.core.units import DAY_US
from handsell.events.fold import fold, truncate
from handsell.events.states import Events, FoldRules, ItemAttributes
from handsell.features.request_builder import build_events, build_requests_from_rows
from handsell.features.rows import Vocabularies, build_user_rows, read_states
from handsell.features.user import list_user_features
from handsell.testing.small_catalog import draw_snapshot

NOW = START + 45 * DAY_US


@pytest.fixture
def case(rng, tmp_path):
    config = write_tiny_config(tmp_path)
    shelf = draw_snapshot(rng, items=40, creators=6, tags=5)
    facts, rules = ItemAttributes(shelf.creator, shelf.item_tags), FoldRules.of(config)
    kind = rng.integers(0, 3, 120)
    time = np.sort(rng.choice(40 * DAY_US, 120, replace=False)) + START
    log = Events.of(rng.integers(0, 4, 120), rng.integers(0, 40, 120), kind, time, np.array([0, 1, -0.5])[kind])
    states = fold(rules.empty_states(4), log, facts, rules)
    names = Vocabularies(Vocabulary.of(f"u{i}" for i in range(4)), shelf.items, shelf.creators, shelf.tags)
    tables = build_user_rows(states, np.arange(4), names, config)
    rows = {c: t[c].combine_chunks() for t in tables.values() for c in t.column_names}
    rows |= {"user_number": pa.array(range(4)), "age": pa.array([20.0, 30.0, None, 50.0])}
    rows |= {"country": pa.array(["de", None, "", "fr"]), "adult": pa.array([True, False, None, True])}
    rows |= {"languages": pa.array([["de", "en"], [], None, ["fr"]])}
    return config, shelf, rules, facts, states, rows


def ask(case, rows=None, n=4, **more):
    config, shelf, *_, stored = case
    return build_requests_from_rows(rows or stored, shelf, config, np.full(n, NOW), np.zeros(n, np.int8), **more)


def as_lists(rows):
    """What the online store gives for the same rows."""
    return {name: column.to_pylist() for name, column in rows.items()}


def same(one, other):
    for f in fields(one):
        left, right = getattr(one, f.name), getattr(other, f.name)
        if isinstance(left, np.ndarray) and left.dtype == object:
            assert left.tolist() == right.tolist(), f.name
        elif isinstance(left, np.ndarray):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6, err_msg=f.name)
        elif is_dataclass(left):
            same(left, right)
        else:
            assert left == right, f.name


def test_a_row_gives_back_the_truncated_state(case):
    config, shelf, rules, _, states, rows = case
    same(read_states(rows, shelf, config), truncate(states, rules))


def test_online_lists_and_offline_arrays_give_the_same_requests(case):
    same(ask(case), ask(case, as_lists(case[-1])))


def test_a_user_without_a_row_is_a_new_user(case):
    rows = {name: [None, *cells[1:]] for name, cells in as_lists(case[-1]).items()}
    found = ask(case, rows)
    assert found.user.tolist() == [-1, 1, 2, 3]
    assert (found.history.item[0] == -1).all() and not len(found.seen.item.row(0))
    values = dict(zip(list_user_features(case[0]), found.profile.features[0], strict=True))
    assert values["user_positive_7d"] == 0 and np.isnan(values["user_active_days"]) and np.isnan(values["user_age"])
    whole = ask(case)
    same(found.take(np.array([1, 2, 3])), whole.take(np.array([1, 2, 3])))


def test_the_tail_of_the_log_folds_onto_the_row(case):
    """Row + tail = the state that had folded the tail before it was written."""
    config, shelf, rules, facts, states, rows = case
    columns = {
        "type": ["listen", "skip", "listen"],
        "item_id": ["i3", "i4", "unheard of"],
        "time": [NOW - 9_000_000, NOW - 5_000_000, NOW - 1_000_000],
        "value": [None, None, None],
        "offset": [7, 8, 9],
    }
    events = build_events(columns, np.array([2, 2, 2]), shelf, config)
    found = ask(case, events=events)
    assert found.history.item[2, -2:].tolist() == [3, 4]  # an item that the catalog lacks leaves no trace there
    folded = fold(truncate(states, rules), events, facts, rules)
    np.testing.assert_array_equal(found.history.item, folded.history.item)
    names = list_user_features(config)
    count = found.profile.features[2, names.index("user_log_count_listen")]
    assert count == pytest.approx(np.log1p(states.counts[2, 1] + 2))
    same(found.take(np.array([0, 1, 3])), ask(case).take(np.array([0, 1, 3])))
    # what the row has folded already is ignored
    behind = {**as_lists(rows), "log_offset": [0, 0, 9, 0]}
    same(ask(case, behind, events=events), ask(case))


def test_session_events_count_once_and_as_just_happened(case):
    config, shelf, *_ = case
    columns = {"type": ["listen", "listen"], "item_id": ["i5", "i6"], "time": [None, NOW + 10**9]}
    session = build_events(columns, np.array([1, 1]), shelf, config)
    found = ask(case, events=session)
    assert found.history.item[1, -2:].tolist() == [5, 6]
    assert (found.history.time[1] < NOW).all() and (found.seen.time.values < NOW).all()
    # told by the log and again by the request
    columns = {"type": ["listen"], "item_id": ["i5"], "time": [NOW - 1000]}
    told = build_events({**columns, "offset": [3]}, np.array([1]), shelf, config)
    again = build_events(columns, np.array([1]), shelf, config)
    both = Events(*(np.concatenate([getattr(told, f.name), getattr(again, f.name)]) for f in fields(Events)))
    same(ask(case, events=both), ask(case, events=told))
    # … but the same item a second time is a second event
    later = build_events({**columns, "time": [NOW - 500]}, np.array([1]), shelf, config)
    both = Events(*(np.concatenate([getattr(told, f.name), getattr(later, f.name)]) for f in fields(Events)))
    assert ask(case, events=both).history.item[1, -2:].tolist() == [5, 5]


def test_a_new_user_with_a_session_has_a_history(case):
    config, shelf, *_ = case
    rows = {name: [None] for name in case[-1]}
    columns = {"type": ["listen", "listen"], "item_id": ["i5", "i6"], "time": [None, None]}
    found = ask(case, rows, 1, events=build_events(columns, np.zeros(2), shelf, config))
    assert found.history.item[0].tolist() == [-1, -1, -1, -1, 5, 6]
    assert found.seen.item.row(0).tolist() == [5, 6]
    assert np.isfinite(found.profile.features[0, list_user_features(config).index("user_days_since_last")])


def test_exclude_and_user_pass_through(case):
    exclude = Ragged.from_rows([[1], [], [2, 3], []])
    found = ask(case, exclude=exclude, user=np.array([9, 8, 7, 6]))
    assert found.exclude is exclude and found.user.tolist() == [9, 8, 7, 6]


def test_a_missing_column_is_named(case):
    rows = {name: column for name, column in case[-1].items() if name != "history_times_us"}
    with pytest.raises(FeatureError, match="expected column history_times_us"):
        ask(case, rows)


def test_filters_are_given_what_is_known_of_the_user(case):
    expected = [
        [20.0, "de", True, ("de", "en")],
        [30.0, None, False, ()],
        [None, "", None, None],
        [50.0, "fr", True, ("fr",)],
    ]
    assert list(case[0].features.filter_attributes) == ["age", "country", "adult", "languages"]
    for rows in (case[-1], as_lists(case[-1])):
        assert ask(case, rows).attributes.tolist() == expected
    alike = case[-1] | {"languages": pa.array([["de", "en"], ["fr", "it"], ["de", "fr"], ["a", "b"]])}
    assert ask(case, alike).attributes[:, 3].tolist() == [("de", "en"), ("fr", "it"), ("de", "fr"), ("a", "b")]
    nobody = {name: [None] for name in case[-1]}
    assert ask(case, nobody, n=1).attributes.tolist() == [[None] * 4]
