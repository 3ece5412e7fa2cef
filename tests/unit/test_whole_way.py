"""Random ids and metadata through the whole way: tables, doctor, data and feature steps, catalog, HTTP answers."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_metadata_answers import EXAMPLES

from handsell.config import load_config
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.interaction_parts import list_parts
from handsell.data.interactions import Interactions
from handsell.data.readers.conversion import MISSING, clear_missing, convert
from handsell.data.readers.location import ColumnLocation
from handsell.data.schemas import STRINGS, TIME
from handsell.doctor.inspection import examine
from serving_service import start_service
from serving_world import World, publish_bundle
from ugly_shop import read_shop

END = 20_600 * DAY_US
ITEMS, USERS = 28, 12
TOML = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events.parquet"
[data.tables.items]
path = "items.parquet"
[events.types]
view = { weight = 1.0 }
[split]
ranker_days = 5
validation_days = 2
test_days = 2
[surfaces.home]
repeat = "allow"
[retrieval]
candidates = 60
[retrieval.als]
enabled = false
[retrieval.two_tower]
enabled = false
[retrieval.content]
enabled = false
[serving]
clock = "data"
deadline_ms = 60000
[jobs]
partitions = 1
"""
TRICKY = "/?#%&=+:;@\\\"'<>[]{} .,|é日🎧\u00a0\u200d\u202e\u0301"
CHARACTERS = st.sampled_from(TRICKY) | st.characters(exclude_categories=["Cs", "Cc"])
IDS = st.text(CHARACTERS, min_size=1, max_size=256).filter(lambda text: text.strip() not in MISSING)
SOME = ("a/b", "a%2Fb", ".", "..", " padded ", "007", "7", "7.0", "NaNa", "x" * 256, "é", "e\u0301", "\ufeffx")


@st.composite
def id_lists(draw, size: int):
    """Distinct ids, half of them known to be difficult."""
    drawn = draw(st.lists(IDS.filter(lambda text: text not in SOME), min_size=size, max_size=size, unique=True))
    return [*draw(st.permutations(SOME))[: size // 2], *drawn][:size]


def fits_parquet(values: pa.Array) -> bool:
    try:
        values.take(pa.array([0, None]))
        pq.write_table(pa.table({"x": values}), pa.BufferOutputStream())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


STORED = {f"x{n}": example for n, example in enumerate(EXAMPLES) if fits_parquet(example[0])}


def write_tables(folder: Path, users: list[str], items: list[str], rng: np.random.Generator) -> dict[str, dict]:
    """Write events of all users and items, and items with a column for each type; return the metadata by item."""
    n = 40 * len(users)
    item = np.concatenate([np.arange(len(items)), rng.integers(0, len(items), n - len(items))])
    time = pa.array(END - rng.integers(1, 30 * DAY_US, n)).cast(TIME)
    events = {"user_id": [users[k % len(users)] for k in range(n)], "item_id": [items[i] for i in item], "time": time}
    pq.write_table(pa.table(events), folder / "events.parquet")
    there = {name: rng.random(len(items)) < 0.7 for name in STORED}
    columns = {
        name: STORED[name][0].take(pa.array(np.zeros(len(items), int), mask=~kept)) for name, kept in there.items()
    }
    pq.write_table(pa.table({"item_id": items, "title": items, **columns}), folder / "items.parquet")
    (folder / "shop.toml").write_text(TOML)
    known = {name: expected for name, (_, expected) in STORED.items() if expected is not None}
    return {
        id_: {"title": id_} | {name: expected for name, expected in known.items() if there[name][i]}
        for i, id_ in enumerate(items)
    }


def publish(folder: Path) -> World:
    """Run the doctor, the data step and the feature step, and publish a bundle with their snapshot and rows."""
    shop = read_shop(folder, END)
    layout, snapshot = Layout(shop.config.state), shop.snapshot
    log = Interactions.read(list_parts(layout.interactions), shop.meta["users"], len(snapshot))
    users = pq.read_table(layout.users)["user_id"].to_pylist()
    columns = shop.store.at(END).online_users(users)
    rows = {user: {name: cells[n] for name, cells in columns.items()} for n, user in enumerate(users)}
    return World(shop.config, snapshot, publish_bundle(shop.config, snapshot, log, rows, END), rows)


async def check_answers(world: World, users: list[str], metadata: dict[str, dict]) -> None:
    async with start_service(world) as (client, _):
        answer = await client.get("/v1/popular?count=30&include=metadata")
        assert answer.status_code == 200, answer.text
        found = json.loads(answer.content, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["items"]
        assert {item["item_id"]: item["metadata"] for item in found} == metadata
        for user in users:
            path = quote(user, safe="").replace(".", "%2E")
            answers = [
                await client.get(f"/v1/users/{path}/recommendations?count=5"),
                await client.post("/v1/recommendations", json={"user_id": user, "count": 5}),
            ]
            assert [a.status_code for a in answers] == [200, 200], user
            for slate in (a.json() for a in answers):
                assert not slate["cold_start"] and len(slate["items"]) == 5
                assert {item["item_id"] for item in slate["items"]} <= set(metadata)
        for item in metadata:
            similar = await client.get("/v1/similar", params={"item_id": item, "count": 3})
            assert similar.status_code == 200, (item, similar.text)


@settings(max_examples=2, deadline=None, phases=[Phase.generate])
@given(id_lists(USERS), id_lists(ITEMS), st.integers(0, 2**32))
def test_ids_come_back_exactly_and_metadata_follows_the_rule(users, items, seed):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDSELL_HOME", folder)
        metadata = write_tables(Path(folder), users, items, np.random.default_rng(seed))
        report = examine(load_config(Path(folder) / "shop.toml"))
        assert report.ok, report.problems
        asyncio.run(check_answers(publish(Path(folder)), users, metadata))


@pytest.mark.parametrize("bad", ["a\nb", "\x00", "x\x7f", "a\tb"])
def test_ids_that_the_api_rejects_are_errors_of_the_doctor(configured, tmp_path, bad):
    write_tables(tmp_path, [bad, "u"], [bad, "b", "c"], np.random.default_rng(1))
    report = examine(configured(TOML))
    found = {problem.name: problem for problem in report.problems if problem.severity == "error"}
    assert {"unprintable user_id", "unprintable item_id", "unprintable item_id in items"} <= set(found)
    assert "control characters" in found["unprintable item_id"].message and found["unprintable item_id"].count > 1


def test_bytes_of_another_encoding_are_named_in_canonical_columns_and_replaced_in_others():
    latin = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 5], np.int32)), pa.py_buffer(b"aCaf\xe9"))
    place = ColumnLocation("items.parquet", "name", "title")
    assert clear_missing(latin).to_pylist() == ["a", "Caf\ufffd"]
    tags = pa.ListArray.from_arrays([0, 1, 2], latin)
    for column, kind in ((latin, pa.string()), (latin.dictionary_encode(), pa.string()), (tags, STRINGS)):
        with pytest.raises(DataError, match=r"column name \(title\): expected text in UTF-8.* in row 2"):
            convert(column, kind, place, "|")
