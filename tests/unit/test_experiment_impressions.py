"""Arms, units and teams of slates, in the event store and in compacted files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from event_stores import make_slate
from handsell.core.paths import Layout
from handsell.events import compacted_files
from handsell.events.compacted_files import SCHEMAS, list_ranges, read_range, write_range
from handsell.events.compaction import compact
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter

PLAIN = {
    "item_id": ["a", "b"], "score": [0.5, 0.4], "propensity": [1.0, 0.5], "sources": [["x"], []],
}  # fmt: skip
TESTED = {
    **PLAIN, "arms": {"bolder": "bold", "ü": "control"}, "stopped": {"ü": "calm"}, "units": {"bolder": "v1"},
    "interleaved": "mix", "teams": ["control", None],
}  # fmt: skip


@pytest.fixture
def config(configured):
    config = configured('name = "shop"\n[data]\nformat = "world"\n')
    with SqliteWriter(Layout(config.state).event_log) as log:
        slates = [make_slate(n, items=json.dumps(items)) for n, items in enumerate((PLAIN, TESTED))]
        log.append_slates(slates).result()
    return config


def check(columns: dict[str, list]) -> None:
    assert columns["arms"][:2] == columns["teams"][:2] == columns["stopped"][:2] == columns["interleaved"][:2]
    assert columns["arms"][:2] == [None, None]
    assert [json.loads(text) for text in columns["arms"][2:]] == [{"bolder": "bold", "ü": "control"}] * 2
    assert columns["teams"][2:] == ["control", None] and columns["interleaved"][2:] == ["mix", "mix"]
    assert json.loads(columns["stopped"][2]) == {"ü": "calm"} and json.loads(columns["units"][3]) == {"bolder": "v1"}


def test_impressions_have_the_arms_of_their_slate_and_the_team_of_their_position(config):
    reader = SqliteReader(Layout(config.state).event_log)
    check(reader.read_impressions())
    reader.close()


def test_compacted_impressions_have_them_too(config):
    compact(config, lambda text: None)
    folder = Layout(config.state).compacted
    check(read_range(folder, list_ranges(folder, "impressions")[0]).to_pydict())


def test_files_of_versions_without_experiments_are_read_as_slates_in_none(config, monkeypatch):
    folder, now = Layout(config.state).compacted, SCHEMAS["impressions"]
    before = pa.schema([f for f in now if f.name not in ("arms", "stopped", "units", "interleaved", "teams")])
    with monkeypatch.context() as patch:
        patch.setitem(compacted_files.SCHEMAS, "impressions", before)
        compact(config, lambda text: None)
    one = list_ranges(folder, "impressions")[0]
    assert "arms" not in pq.read_schema(folder / one.files[0].path).names
    rows = read_range(folder, one)
    assert rows.schema == now and rows["arms"].to_pylist() == [None] * 4
    write_range(folder, "impressions", one.first, one.through, rows, ".1")
    assert read_range(folder, list_ranges(folder, "impressions")[0]).equals(rows)
