"""Events and labeled requests of each format."""

import json

import numpy as np
import pytest
from benchmarks.protocols import datasets
from benchmarks.protocols.datasets import START_US
from benchmarks.protocols.models import select_space
from benchmarks.protocols.protocol import build_requests
from benchmarks.protocols.staged_search import take_part

from handsell.core.errors import DataError
from handsell.core.units import HOUR_US


@pytest.fixture
def file(tmp_path):
    def write(name: str, text: str):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def lines(events) -> list[list[int]]:
    return [events.item[events.user == u].tolist() for u in range(events.n_users)]


def rows_of(requests) -> list[tuple]:
    rows = range(len(requests))
    return [(requests.user[b], requests.history.row(b).tolist(), requests.target.row(b).tolist()) for b in rows]


def test_adjacency_is_tuned_on_the_last_tenth_of_each_line(file):
    long = " ".join(map(str, range(20)))
    data = datasets.read_adjacency(
        file("train", f"a {long}\nb 3 1\nc 7\nd\n"), file("test", "b 9 8 9\nc 2\n"), ordered=True
    )
    assert lines(data.tune.events) == [list(range(18)), [3], [7], []]
    assert rows_of(data.tune.requests) == [(0, list(range(18)), [18, 19]), (1, [3], [1])]
    assert lines(data.final.events) == [list(range(20)), [3, 1], [7], []]
    assert rows_of(data.final.requests) == [(1, [3, 1], [8, 9]), (2, [7], [2])]
    assert data.masks_history and data.n_items == 20


def test_lines_without_an_order_are_tuned_on_a_random_tenth_and_do_not_decay(file):
    train = "".join(f"{u} " + " ".join(map(str, range(20))) + "\n" for u in range(30)) + "x 1\ny 3 1\n"
    data = datasets.read_adjacency(file("train", train), file("test", "x 2\n"), ordered=False)
    held = [target for _, _, target in rows_of(data.tune.requests)]
    assert [len(target) for target in held] == [2] * 30 + [
        1
    ]  # a tenth, at least one; a line of one item has none to give
    assert len({tuple(target) for target in held}) > 20 and np.mean([target[-1] for target in held[:-1]]) < 17
    for (_, history, target), line in zip(rows_of(data.tune.requests)[:-1], lines(data.tune.events), strict=False):
        assert history == line and sorted(line + target) == list(range(20))
    assert not data.ordered and set(data.final.events.time) == {START_US}
    requests = build_requests(data.tune.requests)
    assert set(requests.history.time[requests.history.item >= 0]) == {START_US} and (requests.time > START_US).all()
    again = datasets.read_adjacency(file("train", train), file("test", "x 2\n"), ordered=False, seed=1)
    assert [target for _, _, target in rows_of(again.tune.requests)] != held


def test_the_order_of_lines_is_found_where_it_is_not_given(file):
    data = datasets.read_adjacency(file("train", "0 1 2\n1 3\n"), file("test", "0 4\n"))
    assert not data.ordered and data.found_order is not None
    assert "half_life_days" not in select_space("item_knn", data) and "neighbors" in select_space("item_knn", data)
    given = datasets.read_adjacency(file("train", "0 1 2\n1 3\n"), file("test", "0 4\n"), ordered=True)
    assert given.ordered and given.found_order is None and "half_life_days" in select_space("item_knn", given)


def test_a_validation_file_is_never_fitted_on(file):
    data = datasets.read_adjacency(
        file("train", "0 1 2\n1 3\n"), file("test", "0 4\n"), file("validation.json", "[[5], [4, 2]]")
    )
    assert lines(data.tune.events) == lines(data.final.events) == [[0, 1], [2]]
    assert rows_of(data.tune.requests) == [(0, [0, 1], [4]), (1, [2], [1, 3])]
    assert rows_of(data.final.requests) == [(0, [0, 1], [3])]
    with pytest.raises(DataError, match="none of its 1 users is in the train file"):
        datasets.read_adjacency(file("train", "0 1\n"), file("test", "0 4\n"), file("validation", "7 1\n"))


def test_a_test_user_without_a_train_line_has_an_empty_history(file):
    data = datasets.read_adjacency(file("train", "0 1 2\n"), file("test", "9 1\n"))
    assert rows_of(data.final.requests) == [(1, [], [0])]


def test_a_part_has_whole_lines_and_some_requests(file, rng):
    train = "".join(f"{u} {u % 7} {u % 5} {u % 3} 9\n" for u in range(3_000))
    whole = datasets.read_adjacency(file("train", train), file("test", "0 4\n"), ordered=True).tune
    some = take_part(whole, rng)
    taken = [(a, b) for a, b in zip(lines(some.events), lines(whole.events), strict=True) if a]
    assert 500 < len(taken) < 700 and all(a == b for a, b in taken)
    assert len(some.requests) == 1_500 < len(whole.requests) and (np.diff(some.requests.user) > 0).all()
    assert some.events.n_items == whole.events.n_items


def test_sequences_hold_out_the_last_item_and_for_tuning_the_last_two(file):
    attributes = file("attributes.json", json.dumps({"1": [10, 11], "8": [10]}))
    data = datasets.read_sequences(file("data", "u 1 2 3 4\nv 2 1\nw 3\n"), attributes)
    assert lines(data.tune.events) == [[0, 1], [], []]
    assert rows_of(data.tune.requests) == [(0, [0, 1], [2])]
    assert lines(data.final.events) == [[0, 1, 2], [1], []]
    assert rows_of(data.final.requests) == [(0, [0, 1, 2], [3]), (1, [1], [0])]
    assert data.n_items == 5  # 8 has attributes only
    vectors = data.attributes.fit_content(4).vectors
    assert vectors.shape[0] == 5 and vectors[0].any() and vectors[4].any() and not vectors[1:4].any()
    assert vectors[0] @ vectors[4] > 0.5  # they share attribute 10


def test_sessions_are_tuned_on_every_prefix_of_the_last_tenth(file):
    train = "".join(f"{s} {s + 1}\n" for s in range(18)) + "1 2 3\n4\n"
    data = datasets.read_sessions(file("train", train), file("test", "1 2 1\n5 3\n"))
    assert len(lines(data.tune.events)) == 18
    assert rows_of(data.tune.requests) == [(-1, [1], [2]), (-1, [1, 2], [3])]
    assert len(lines(data.final.events)) == 20
    assert rows_of(data.final.requests) == [(-1, [1, 2], [1]), (-1, [5], [3])]
    assert not data.masks_history
    assert data.final.requests.start > data.final.events.time.max()


def test_events_are_an_hour_apart_and_later_sessions_are_later(file):
    data = datasets.read_adjacency(file("train", "0 1 2 3\n1 3 1\n"), file("test", "0 4\n"), ordered=True)
    assert (data.final.events.time - START_US).tolist() == [0, HOUR_US, 2 * HOUR_US, 0, HOUR_US]
    later = datasets.read_sessions(file("s", "1 2\n1 2\n"), file("t", "1 2\n")).final.events.time
    assert later.tolist() == [START_US, START_US + HOUR_US, START_US + 60_000_000, START_US + HOUR_US + 60_000_000]


def test_item_numbers_depend_on_the_set_of_items_alone(file):
    one = datasets.read_adjacency(file("train", "0 5 7\n"), file("test", "0 9 3\n"))
    other = datasets.read_adjacency(file("train", "0 5 7\n"), file("test", "0 3\n1 9\n"))
    assert np.array_equal(one.final.events.item, other.final.events.item)
