"""Weights, numbers, duplicates, and increasing times."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.errors import ConfigError, DataError
from handsell.data.alignment import align_rows, mark_unavailable
from handsell.data.config import EventsConfig
from handsell.data.interactions import NUMBERED
from handsell.data.numbering import (
    KEYED,
    deduplicate_and_sort,
    extend_vocabulary,
    look_up,
    make_strictly_increasing,
    number_events,
)
from handsell.data.readers.base import build_event_batch, build_items_table, drop_incomplete
from handsell.data.schemas import EVENTS, TIME
from handsell.data.weights import compute_event_weights
from handsell.events.store.sqlite_writer import SqliteWriter

TYPES = EventsConfig.model_validate(
    {"types": {"rating": {"weight": 0.1, "weight_by_value": [[1, -1], [3, 0.5], [4.1, 2]]}, "skip": {"weight": -0.5}}}
)


def batch(rows: list[tuple]) -> pa.RecordBatch:
    """Rows of (event_id, user, item, type, time, value)."""
    names = ("event_id", "user_id", "item_id", "type", "time", "value")
    kinds = (pa.string(), pa.string(), pa.string(), pa.string(), TIME, pa.float32())
    columns = {n: pa.array(c, k) for n, k, c in zip(names, kinds, zip(*rows, strict=True), strict=True)}
    return drop_incomplete(build_event_batch(columns))


def test_weights_by_hand():
    values = np.array([0.5, 1, 2.9, 3, 4, 4.1, 5, np.nan, 5], np.float32)
    types = np.array([0, 0, 0, 0, 0, 0, 0, 0, 1])
    expected = [0.1, -1, -1, 0.5, 0.5, 2, 2, 0.1, -0.5]
    assert compute_event_weights(types, values, TYPES) == pytest.approx(expected)


def test_thresholds_must_ascend():
    wrong = EventsConfig.model_validate({"types": {"r": {"weight_by_value": [[3, 1], [1, 0]]}}})
    with pytest.raises(ConfigError, match=r"events\.types\.r\.weight_by_value: expected .* ascending"):
        compute_event_weights(np.zeros(1, int), np.ones(1, np.float32), wrong)


def test_a_batch_by_hand():
    rows = number_events(
        batch([("e1", "b", "y", "rating", 5, 4.5), ("e2", "a", "x", "skip", 6, None)]),
        Vocabulary.of(["a", "b"]),
        Vocabulary.of(["x", "y"]),
        TYPES,
    )
    assert rows["user"].to_pylist() == [1, 0]
    assert rows["item"].to_pylist() == [1, 0]
    assert rows["type"].to_pylist() == [0, 1]
    assert rows["weight"].to_pylist() == [2.0, -0.5]


def test_an_unknown_type_is_named():
    with pytest.raises(DataError, match=r"expected rating, skip .* also got 'share'"):
        number_events(batch([("e", "a", "x", "share", 1, None)]), Vocabulary.of(["a"]), Vocabulary.of(["x"]), TYPES)


def test_incomplete_rows_are_dropped():
    rows = [("e", "a", "x", "skip", 1, None), ("f", None, "x", "skip", 1, None), ("g", "a", "x", "skip", None, None)]
    good = batch(rows)
    assert good["event_id"].to_pylist() == ["e"]
    assert good.schema == EVENTS


def sorted_rows(rows: list[tuple]) -> list[dict]:
    known = Vocabulary.of(["a", "b", "c"]), Vocabulary.of(["x", "y", "z"])
    table = deduplicate_and_sort(number_events(batch(rows), *known, TYPES))
    assert table.schema == NUMBERED
    return table.select(["user", "item", "time"]).to_pylist()


def test_duplicates_ties_and_order_by_hand():
    assert sorted_rows(
        [
            ("e1", "b", "x", "skip", 100, None),
            ("e2", "a", "y", "skip", 100, None),
            ("e3", "a", "x", "skip", 100, None),
            ("e2", "a", "y", "skip", 100, None),  # delivered twice
            ("e2", "b", "y", "skip", 7, None),  # another user's e2 is another event
            ("e4", "a", "z", "skip", 101, None),  # pushed on by the tie before it
        ]
    ) == [
        {"user": 0, "item": 1, "time": 100},
        {"user": 0, "item": 0, "time": 101},
        {"user": 0, "item": 2, "time": 102},
        {"user": 1, "item": 1, "time": 7},
        {"user": 1, "item": 0, "time": 100},
    ]


def increase_by_loop(user: list[int], time: list[int]) -> list[int]:
    out: list[int] = []
    for k, t in enumerate(time):
        out.append(max(t, out[-1] + 1) if k and user[k] == user[k - 1] else t)
    return out


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=60))
def test_increasing_times_equal_the_loop(pairs):
    pairs.sort()
    user, time = (np.array([p[k] for p in pairs], np.int64) for k in (0, 1))
    assert make_strictly_increasing(user, time).tolist() == increase_by_loop(user.tolist(), time.tolist())


def test_deduplication_does_not_depend_on_other_users_of_the_partition(rng):
    rows = [
        (f"e{rng.integers(40)}", "abc"[rng.integers(3)], "xyz"[rng.integers(3)], "skip", int(rng.integers(10)), None)
        for _ in range(60)
    ]
    alone = [row for user in "abc" for row in sorted_rows([r for r in rows if r[1] == user])]
    assert alone == sorted_rows(rows)


def test_vocabulary_is_append_only():
    first = extend_vocabulary(None, [pa.array(["b", None, "a", "b"])])
    more = extend_vocabulary(first, [pa.array(["c", "a"]), pa.array(["d"])])
    assert more.ids(np.arange(4)) == ["b", "a", "c", "d"]
    assert look_up(pa.array(["d", "a", "nobody", "d"]), more).tolist() == [3, 1, -1, 3]


def test_items_are_in_order_of_their_numbers():
    table = build_items_table({"item_id": pa.array(["x", "y", "x"]), "title": pa.array(["X", "Y", "again"])})
    rows = align_rows(table, "item_id", Vocabulary.of(["y", "event only", "x", "gone"]))
    assert rows["item_id"].to_pylist() == ["y", "event only", "x", "gone"]
    assert rows["title"].to_pylist() == ["Y", None, "X", None]
    assert mark_unavailable(rows, np.array([1, 1, 1, 0], bool))["available"].to_pylist() == [None, None, None, False]


EVENT = st.tuples(
    st.sampled_from([None, "", "e1", "e2"]), st.sampled_from("ab"), st.sampled_from("xy"),
    st.sampled_from(["skip", "rating"]), st.integers(0, 2),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(EVENT, max_size=20))
def test_the_tables_and_the_event_log_have_one_key(rows, tmp_path_factory):
    """Lines of one order, deliveries with another id, without an id, in the same second: both sides keep the same."""
    known = Vocabulary.of("ab"), Vocabulary.of("xy")
    table = number_events(batch([(*row, None) for row in rows]), *known, TYPES) if rows else KEYED.empty_table()
    names = ("event_id", "user_id", "item_id", "type", "time")
    with SqliteWriter(tmp_path_factory.mktemp("log") / "log.db") as log:
        done = log.append([dict(zip(names, row, strict=True)) for row in rows]).result()
    expected = len({(row[0] or "", *row[1:]) for row in rows})
    assert len(deduplicate_and_sort(table)) == done.accepted == expected
