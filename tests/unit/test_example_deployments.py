"""The examples: their scripts convert small files of the original form, and their configs fit the tables."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.config import load_config
from handsell.config.schema import Config
from handsell.data.readers.base import read_all_events
from handsell.data.readers.detect import open_reader

EXAMPLES = Path(__file__).parents[2] / "deployments" / "configs" / "examples"
CONFIGS = sorted(EXAMPLES.glob("*.toml"))


def convert(name: str, source: Path, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(source, folder)


def read_events(name: str, folder: Path, monkeypatch) -> tuple[Config, pa.Table]:
    """Read the converted tables as the deployment does."""
    monkeypatch.setenv("HANDSELL_DATA", str(folder))
    config = load_config(EXAMPLES / f"{name}.toml")
    return config, pa.Table.from_batches(list(read_all_events(open_reader(config))))


@pytest.fixture
def sessions(tmp_path):
    """Session actions of two users; a click-out has the shown hotels and their prices as text."""
    rows = [
        ("u1", "s1", 1541548939, 1, "search for destination", "Lyon, France", "Lyon, France", None, None),
        ("u1", "s1", 1541548949, 2, "interaction item image", "11", "Lyon, France", None, None),
        ("u1", "s1", 1541548959, 3, "clickout item", "12", "Lyon, France", "11|12|13", "80|90|100"),
        ("u2", "s2", 1541600000, 1, "search for item", "21", "Oslo, Norway", None, None),
        ("u2", "s2", 1541600009, 2, "clickout item", "12", "Lyon, France", "12|13", "70|110"),
        ("u2", "s2", 1541600019, 3, "search for item", "unknown", "Oslo, Norway", None, None),
    ]
    names = ("user_id", "session_id", "timestamp", "step", "action_type", "reference", "city", "impressions", "prices")
    table = pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    table = table.append_column("platform", pa.array(["FR"] * len(rows)))
    pq.write_table(table.append_column("device", pa.array(["mobile"] * len(rows))), tmp_path / "actions.parquet")
    return tmp_path


def test_lists_of_shown_hotels_become_impressions_with_positions(sessions, tmp_path, monkeypatch):
    convert("trivago", sessions, tmp_path / "out")
    config, events = read_events("trivago", tmp_path / "out", monkeypatch)
    shown = events.filter(pa.compute.equal(events["type"], "impression")).select(["user_id", "item_id", "position"])
    assert sorted(map(tuple, (row.values() for row in shown.to_pylist()))) == [
        ("u1", "11", 1), ("u1", "12", 2), ("u1", "13", 3), ("u2", "12", 1), ("u2", "13", 2),
    ]  # fmt: skip
    assert len(events) == 5 + 4, "a destination and a text are no items"
    assert set(events["type"].to_pylist()) <= set(config.events.names)
    hotels = {row["item_id"]: row for row in open_reader(config).items().to_pylist()}
    assert {item: row["price"] for item, row in hotels.items()} == {"11": 80, "12": 80, "13": 105, "21": None}
    assert hotels["21"]["tags"] == ["Oslo, Norway"] and hotels["12"]["tags"] == ["Lyon, France"]
    assert set(config.features.item_columns) <= hotels["11"].keys()
    users = open_reader(config).users()
    assert len(users) == 2 and set(config.features.user_attributes) <= set(users.column_names)


def test_baskets_are_a_week_apart_and_end_on_the_same_day(tmp_path, monkeypatch):
    history = {"1": [[-1], [7], [8, 9], [-1]], "2": [[-1], [7], [-1]]}
    (tmp_path / "tafeng_history.json").write_text(json.dumps(history))
    (tmp_path / "tafeng_future.json").write_text(json.dumps({"1": [[-1], [5, 7], [-1]], "2": [[-1], [6], [-1]]}))
    convert("ta_feng", tmp_path, tmp_path / "out")
    _, events = read_events("ta_feng", tmp_path / "out", monkeypatch)
    days = (events["time"].to_numpy() - events["time"].to_numpy().max()) / np.timedelta64(1, "D")
    found = zip(events["user_id"].to_pylist(), events["item_id"].to_pylist(), days.tolist(), strict=True)
    assert sorted(found) == [("1", "7", -7), ("1", "8", 0), ("1", "9", 0), ("2", "7", 0)]
    assert (tmp_path / "out" / "next_baskets.csv").read_text().split() == ["user_id,item_id", "1,5", "1,7", "2,6"]


def test_the_examples_run_side_by_side():
    """No two examples share a name or a port, with each other or with the default."""
    configs = [load_config(path) for path in CONFIGS]
    ports = [p for c in (Config(name="default"), *configs) for p in
             (c.serving.port, c.jobs.dashboard_port, c.jobs.gcs_port)]  # fmt: skip
    assert len(configs) >= 2 and len(set(ports)) == len(ports)
    assert len({config.name for config in configs}) == len(configs)
