"""Metadata of every Arrow type is answered by the rule in serving/http/metadata.py."""

import datetime as dt
import json
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.serving.http.answers import Item
from handsell.serving.http.metadata import describe_rows
from serving_service import start_service
from serving_world import write_world

NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(np.array([0, 4], np.int32)), pa.py_buffer(b"Caf\xe9")]
)
FIRST = pa.array([0], pa.int8())  # the type of a value of a union
EXAMPLES = [
    (pa.array([Decimal("12.50")]), "12.50"),
    (pa.array([Decimal("-0.001")], pa.decimal256(50, 3)), "-0.001"),
    (pa.array([[Decimal("1.5"), None]]), ["1.5", None]),
    (pa.array([b"\x00\xff"]), "AP8="),
    (pa.array([b"\x00\xff"], pa.binary(2)), "AP8="),
    (pa.array([b""], pa.large_binary()), ""),
    (pa.array([dt.timedelta(seconds=90, milliseconds=500)]), 90.5),
    (pa.array([7], pa.duration("ns")), 7e-9),
    (pa.array([dt.date(2026, 6, 30)]), "2026-06-30"),
    (pa.array([10**13], pa.date64()), "2286-11-20"),
    (pa.array([5_000_000], pa.date32()), "15659-07-15"),
    (pa.array([dt.time(12, 0, 0, 250_000)]), "12:00:00.250000"),
    (pa.array([3_600], pa.time32("s")), "01:00:00"),
    (pa.array([dt.datetime(2300, 1, 1)], pa.timestamp("us", tz="Europe/Berlin")), "2300-01-01T00:00:00Z"),
    (pa.array([10**12], pa.timestamp("s")), "33658-09-27T01:46:40"),
    (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
    (pa.array([np.iinfo(np.int64).min], pa.timestamp("us")), None),
    (pa.array([float("nan")]), None),
    (pa.array([[1.5, float("inf"), None]]), [1.5, None, None]),
    (pa.array([np.float16(1.5)]), 1.5),
    (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    (pa.array([True]), True),
    (pa.array([{"a": Decimal("1.0"), "b": [b"x"]}]), {"a": "1.0", "b": ["eA=="]}),
    (pa.array([[(1, Decimal("2.0"))]], pa.map_(pa.int8(), pa.decimal128(3, 1))), {"1": "2.0"}),
    (pa.array(["x"]).dictionary_encode(), "x"),
    (pa.RunEndEncodedArray.from_arrays([1], [Decimal("1.5")]), "1.5"),
    (pa.array(["x"], pa.string_view()), "x"),
    (pa.array([["x", None]], pa.list_(pa.string(), 2)), ["x", None]),
    (pa.array([["x"]], pa.list_view(pa.large_string())), ["x"]),
    (pa.array([[]], pa.large_list(pa.int8())), None),
    (pa.array([None]), None),
    (NOT_UTF8, "Caf\ufffd"),
    (pa.array([[(True, 1), (False, 2)]], pa.map_(pa.bool_(), pa.int8())), {"true": 1, "false": 2}),
    (pa.array([[([1.5, float("nan")], 1)]], pa.map_(pa.list_(pa.float32()), pa.int8())), {"[1.5,null]": 1}),
    (pa.UnionArray.from_sparse(FIRST, [pa.array([10**12], pa.timestamp("s"))]), "33658-09-27T01:46:40"),
    (pa.UnionArray.from_dense(FIRST, pa.array([0], pa.int32()), [pa.array([b"x"])]), "eA=="),
    (pa.array([pa.MonthDayNano([1, 2, 3])]), "MonthDayNano(months=1, days=2, nanoseconds=3)"),
]


def read_answer(values: pa.Array, row: int = 0):
    """The metadata of one item with this column, as a caller reads it."""
    described = describe_rows(pa.table({"item_id": ["i"] * len(values), "x": values}), np.array([row]))
    body = Item(item_id="i", rank=1, score=1.0, metadata=described[0]).to_json()
    return json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["metadata"].get("x")


@pytest.mark.parametrize(("values", "expected"), EXAMPLES, ids=lambda part: str(getattr(part, "type", "")))
def test_values_follow_the_rule(values, expected):
    assert read_answer(values) == expected


INT64 = st.integers(-(2**63), 2**63 - 1)
LEAVES = [
    (pa.decimal128(20, 4), st.decimals(-1_000_000, 1_000_000, places=4)),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.binary(), st.binary(max_size=8)),
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)),
    (pa.int64(), INT64),
    *((pa.timestamp(unit, tz), INT64) for unit in ("s", "ms", "us", "ns") for tz in ("UTC", None)),
    *((pa.duration(unit), INT64) for unit in ("s", "ns")),
    (pa.date32(), st.integers(-(2**31), 2**31 - 1)),
]  # fmt: skip


@st.composite
def columns(draw):
    """A column of two values of a random type, up to two levels deep."""
    kind, value = draw(st.sampled_from(LEAVES))
    value = st.none() | value
    for _ in range(draw(st.integers(0, 2))):
        shape = draw(st.sampled_from(["list", "struct", "map"]))
        if shape == "list":
            kind, value = pa.list_(kind), st.none() | st.lists(value, max_size=3)
        elif shape == "struct":
            kind, value = pa.struct({"a": kind}), st.none() | st.fixed_dictionaries({"a": value})
        else:
            entries = st.lists(st.tuples(st.integers(0, 9), value), max_size=2)
            kind, value = pa.map_(pa.int8(), kind), st.none() | entries
    return pa.array([draw(value), draw(value)], kind)


@settings(max_examples=200, deadline=None)
@given(columns())
def test_every_value_can_be_answered(values):
    for row in range(len(values)):
        if read_answer(values, row) is not None:
            assert values[row].is_valid


async def test_the_service_answers_metadata_of_all_types(tmp_path):
    world = write_world(tmp_path)
    async with start_service(world) as (client, service):
        snapshot = service.bundle.snapshot
        table = snapshot.metadata
        for n, (values, _) in enumerate(EXAMPLES):
            table = table.append_column(f"x{n}", pa.chunked_array([values] * len(table)))
        service.bundle.catalog.snapshot = replace(snapshot, metadata=table)
        answer = await client.get("/v1/popular?count=5&include=metadata")
        assert answer.status_code == 200, answer.text
        for item in answer.json()["items"]:
            found = {name: value for name, value in item["metadata"].items() if name.startswith("x")}
            assert found == {f"x{n}": value for n, (_, value) in enumerate(EXAMPLES) if value is not None}
