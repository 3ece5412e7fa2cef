"""An event that is in the tables and in the event log counts once in the next request of its user."""

import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.paths import Layout
from handsell.data.event_key import compute_event_keys
from handsell.data.schemas import TIME
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.events.table_keys import TableKeys, save_table_keys
from handsell.features.request_builder import QueryBatch, read_tail
from handsell.features.storage.online_rows import OnlineRows
from serving_service import start_service
from serving_world import write_world

KEYS = st.integers(-(2**63), 2**63 - 1)


@settings(deadline=None, max_examples=50)
@given(keys=st.lists(st.tuples(st.integers(0, 9), KEYS), max_size=30), asked=st.lists(KEYS, max_size=5))
def test_keys_are_found_in_the_partition_of_their_user(keys, asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "keys"
    assert not TableKeys(folder).contain(1, asked).any()
    for part in range(3):
        save_table_keys(folder, part, np.array([key for user, key in keys if user % 3 == part], np.int64))
    known = TableKeys(folder)
    for user in range(-1, 10):
        mine = [key for other, key in keys if other == user]
        there = {key for other, key in keys if other % 3 == user % 3 and user >= 0}
        assert known.contain(user, [*mine, *asked]).tolist() == [key in there for key in [*mine, *asked]]


def test_a_replaced_folder_is_read_again(tmp_path):
    known = TableKeys(tmp_path / "keys")
    save_table_keys(known.folder, 0, np.array([5]))
    assert known.contain(0, [5, 6, None]).tolist() == [True, False, False]
    known.folder.rename(tmp_path / "old")
    assert known.contain(0, [5, 6]).tolist() == [False, False]
    save_table_keys(known.folder, 0, np.array([6]))
    assert known.contain(0, [5, 6]).tolist() == [False, True]


@pytest.mark.parametrize("event_id", [None, "order 7"])
def test_events_of_the_tables_that_are_posted_too_are_not_folded_again(tmp_path, event_id):
    world = write_world(tmp_path)
    layout, row = Layout(world.config.state), world.rows["u1"]
    columns = {
        "user_id": ["u1"] * len(row["history_item_ids"]), "item_id": row["history_item_ids"],
        "type": row["history_types"], "time": row["history_times_us"],
        "event_id": [event_id] * len(row["history_item_ids"]),
    }  # fmt: skip
    typed = {name: pa.array(cells, TIME if name == "time" else pa.string()) for name, cells in columns.items()}
    save_table_keys(layout.event_keys, 0, compute_event_keys(typed))
    posted = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    new = [
        {**posted[-1], "item_id": "i99"},
        {**posted[-1], "time": posted[-1]["time"] + 1},
        {**posted[-1], "user_id": "u2"},
    ]
    with SqliteWriter(layout.event_log) as log:
        assert log.append([*posted, *new]).result().duplicates == 0
    queries = QueryBatch.of(["u1", "u2", "new"], np.full(3, 2**62), np.zeros(3, np.int8))
    rows = OnlineRows(world.store(), world.config).read(queries.user_id)
    reader = SqliteReader(layout.event_log)
    tail = read_tail(queries, rows, reader, world.snapshot, world.config, False)
    assert tail.row.tolist() == [0, 0, 1]
    assert tail.item[0] == world.snapshot.items.number(["i99"])[0]
    rows["state_time_us"][0] = posted[0]["time"]  # a row from before the newer ones: they are folded
    older = read_tail(queries, rows, reader, world.snapshot, world.config, False)
    assert len(older) == len(posted) - 1 + len(new)


async def test_posted_events_have_the_key_of_the_tables(tmp_path):
    line = {
        "event_id": "order 7",
        "user_id": "u1",
        "item_id": "i1",
        "type": "play",
        "timestamp": "2026-05-01T00:00:00Z",
    }
    bare = {name: value for name, value in line.items() if name != "event_id"}
    untimed = {name: value for name, value in line.items() if name != "timestamp"}
    soon = {**bare, "timestamp": int(time.time() * 1000) + 60_000}  # counts as now, whenever it is delivered
    async with start_service(write_world(tmp_path)) as (client, _):

        async def post(*events):
            answer = (await client.post("/v1/events", json={"events": list(events)})).json()
            assert answer["rejected"] == []
            return answer["accepted"], answer["duplicates"]

        assert await post(line, {**line, "item_id": "i2"}, {**line, "type": "like"}, {**line, "user_id": "u2"}) == (
            4,
            0,
        )
        assert await post(line, {**line, "value": 5.0}, {**line, "timestamp": "2026-05-01T02:00:00+02:00"}) == (0, 3)
        assert await post(bare, bare, {**bare, "timestamp": "2026-05-01T00:00:01Z"}) == (2, 1)
        assert await post(untimed) == (1, 0) and await post(untimed, {**untimed, "item_id": "i2"}) == (1, 1)
        assert await post(soon) == (1, 0) and await post(soon) == (0, 1)
        neither = {name: value for name, value in untimed.items() if name != "event_id"}
        assert await post(neither, neither) == (2, 0)
