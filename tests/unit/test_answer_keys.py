"""The key of an answer changes with each part of a request and of what is read for it, and with nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.core.batches import Ragged, Seen, UserExclusions
from handsell.events.states import Events
from handsell.features.request_builder import Logged
from handsell.features.storage.encoded_rows import EncodedRows
from handsell.serving.graph.users import UserReads, build_query_batch
from handsell.serving.http.paging import Feed
from handsell.serving.http.queries import Query
from handsell.serving.reuse.answer_keys import STEP_US, build_keys

NOW = 1_000 * STEP_US
ROWS = {"state_time_us": [5, 7], "history_item_ids": [["i1"], ["i2", "i3"]], "positive_7d": [0.5, None]}
EVENTS = Events.of([1, 1], [3, 4], [1, 2], [10, 20], [1.0, 2.0], [100, 101])
SESSION = Events.of([0], [9], [1], [NOW - 1], [1.0])


def build_query(**changed) -> Query:
    array = np.array([4, 5], np.int32)
    base = Query(
        "id", "u1", 0, 10, NOW, 0.0, 2.0, SESSION, array, Feed.of("home"), filter="item.x", creators=array, tags=array
    )
    return replace(base, **changed)


def exclude(**changed) -> UserExclusions:
    rows = Ragged.from_rows([[1], [2, 3]])
    return replace(UserExclusions(rows, rows, rows, rows, np.zeros(2, bool)), **changed)


def build_key(query: Query | None = None, rows=ROWS, tail=EVENTS, exclusions=None, impressions=None):
    """Return the key of the second of two queries."""
    queries = [build_query(user_id="u0", count=3), query or build_query()]
    logged = Logged(tail, exclude() if exclusions is None else exclusions, impressions)
    return build_keys(queries, UserReads(build_query_batch(queries), rows, logged, None))[1]


def change_cell(name, value):
    return {**ROWS, name: [ROWS[name][0], value]}


def show(time=30):
    return Seen(Ragged.from_rows([[], [8]]), Ragged.from_rows([[], [time]], np.int64))


def one_more(name):
    """Events of which the last differs in one field."""
    values = getattr(EVENTS, name).copy()
    values[-1] += 1
    return replace(EVENTS, **{name: values})


def at(time, **changed):
    return build_query(time=time, session=replace(SESSION, time=SESSION.time + time - NOW), **changed)


OTHER = np.array([4, 6], np.int32)
RANKED = {
    "surface": {"query": build_query(surface=1)},
    "step of the clock": {"query": at(NOW + STEP_US)},
    "changed settings": {"query": build_query(overlay="x")},
    "filter": {"query": build_query(filter=None)},
    "API key": {"query": build_query(key_id="k")},
    "session item": {"query": build_query(session=replace(SESSION, item=SESSION.item + 1))},
    "session type": {"query": build_query(session=replace(SESSION, type=SESSION.type + 1))},
    "session weight": {"query": build_query(session=replace(SESSION, weight=SESSION.weight + 1))},
    "session time": {"query": build_query(session=replace(SESSION, time=SESSION.time - 1_000))},
    "excluded items": {"query": build_query(exclude=OTHER)},
    "excluded creators": {"query": build_query(creators=OTHER)},
    "excluded tags": {"query": build_query(tags=OTHER)},
    "a number of the row": {"rows": change_cell("state_time_us", 8)},
    "a list of the row": {"rows": change_cell("history_item_ids", ["i2"])},
    "an unknown value": {"rows": change_cell("positive_7d", 0.0)},
    **{f"event {name}": {"tail": one_more(name)} for name in ("item", "type", "time", "weight", "offset")},
    "no event": {"tail": EVENTS.where(np.array([True, False]))},
    **{
        name: {"exclusions": exclude(**{name: Ragged.from_rows([[1], [2]])})}
        for name in ("shown", "capped", "creator", "tag")
    },
}  # fmt: skip
SLATE = {
    "count": {"query": build_query(count=5)},
    "arms": {"query": build_query(arms=("home=b",))},
    "impressions": {"impressions": show()},
}
SAME = {
    "recommendation": {"query": build_query(recommendation_id="other")},
    "user with the same past": {"query": build_query(user_id="u2")},
    "deadline": {"query": build_query(deadline_s=1.0)},
    "a moment later": {"query": at(NOW + 1_000)},
    "event of another user": {"tail": Events.concatenate([EVENTS, Events.of([0], [1], [1], [1], [1.0])])},
    "another user's row": {"rows": {**ROWS, "state_time_us": [6, 7]}},
}


@pytest.mark.parametrize("changed", RANKED)
def test_a_change_of_what_candidates_depend_on_changes_both_keys(changed):
    before, after = build_key(), build_key(**RANKED[changed])
    assert before.ranked != after.ranked and before.slate != after.slate


@pytest.mark.parametrize("changed", SLATE)
def test_a_change_of_what_only_the_slate_depends_on_leaves_the_candidates(changed):
    before, after = build_key(), build_key(**SLATE[changed])
    assert before.ranked == after.ranked and before.slate != after.slate


def test_an_impression_at_another_time_changes_the_slate():
    assert build_key(impressions=show()).slate != build_key(impressions=show(31)).slate


@pytest.mark.parametrize("changed", SAME)
def test_nothing_else_changes_a_key(changed):
    assert build_key() == build_key(**SAME[changed])


def test_a_text_that_cannot_be_written_has_no_key():
    assert build_key(rows=change_cell("history_item_ids", ["\ud800"])) is None


def encode(**changed) -> EncodedRows:
    """The rows of two users as the online store has them."""
    cells = {"state_time_us": [b"5", b"7"], "history_item_ids": [b"i1", b"i2"], "positive_7d": [b"x", None]} | changed
    return EncodedRows(cells, dict.fromkeys(cells, "field"), lambda cells, field: pytest.fail("decoded for a key"))


def test_rows_of_the_online_store_are_hashed_as_they_are():
    same = build_key(rows=encode())
    assert build_key(rows=encode(positive_7d=[None, None])) == same  # of another user
    others = [
        encode(state_time_us=[b"5", b"8"]), encode(positive_7d=[b"x", b""]),
        encode(state_time_us=[b"5", b"7i"], history_item_ids=[b"i1", b"2"]),  # the same bytes, cut elsewhere
        encode().take([1, 0]),
    ]  # fmt: skip
    assert len({same, *(build_key(rows=rows) for rows in others)}) == len(others) + 1
