"""Compaction copies every committed row of the store exactly once, whatever interrupts it; damage is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.events import compacted_files, compaction
from handsell.events.compacted_files import list_ranges, read_position, read_range, rewrite_ranges
from handsell.events.compaction import compact
from handsell.events.store.interface import CatalogChange
from handsell.events.store.sqlite_writer import SqliteWriter

NOW = 20_000 * DAY_US
KINDS = ("events", "impressions", "changes")


def quiet(text: str) -> None:
    pass


@pytest.fixture
def config(configured):
    return configured('name = "shop"\n[data]\nformat = "world"\n')


def event(n: int, day: int = 0) -> dict:
    return {
        "user_id": f"u{n % 7}", "item_id": f"i{n % 5}", "type": "click", "time": NOW + day * DAY_US + n, "value": n / 2,
        "event_id": f"e{n}", "surface": "home", "position": n % 40_000,
    }  # fmt: skip


def slate(n: int, items: int = 3) -> dict:
    body = {
        "item_id": [f"i{k}" for k in range(items)], "score": [0.5] * items, "propensity": [1.0] * items,
        "sources": [["als", "ease"]] * items, "rules": "7",
    }  # fmt: skip
    return {
        "recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "time": NOW + n, "user_id": "u1",
        "surface": "home", "bundle": "b", "items": json.dumps(body),
    }  # fmt: skip


def change(n: int) -> CatalogChange:
    return CatalogChange("item", f"i{n}", "patch", {"title": f"T{n}", "price": n}, NOW + n)


def fill(config, start: int, stop: int) -> None:
    """Append events over three days, slates and changes."""
    with SqliteWriter(Layout(config.state).event_log) as log:
        log.append([event(n, day=n % 3) for n in range(start, stop)]).result()
        log.append_slates([slate(n) for n in range(start, stop)]).result()
        log.append_changes([change(n) for n in range(start, stop)]).result()


def read_all(config, kind: str) -> list[dict]:
    folder = Layout(config.state).compacted
    return [row for one in list_ranges(folder, kind) for row in read_range(folder, one).to_pylist()]


def test_every_row_is_copied_once_into_files_by_date(config):
    fill(config, 0, 50)
    summary = compact(config, quiet)
    assert (summary.events, summary.impressions, summary.changes) == (50, 150, 50)
    assert (summary.events_through, summary.slates_through, summary.changes_through) == (50, 50, 50)
    fill(config, 50, 60)
    assert compact(config, quiet).events == 10 and compact(config, quiet).events == 0
    events = read_all(config, "events")
    assert [row["offset"] for row in events] == list(range(1, 61))
    assert [row["event_id"] for row in events] == [f"e{n}" for n in range(60)]
    assert events[3]["value"] == 1.5 and events[3]["time"].timestamp() * 1e6 == NOW + 3
    shown = read_all(config, "impressions")
    assert [row["position"] for row in shown[:4]] == [1, 2, 3, 1] and shown[0]["sources"] == ["als", "ease"]
    assert json.loads(read_all(config, "changes")[9]["fields"]) == {"title": "T9", "price": 9}
    days = sorted(path.name for path in (Layout(config.state).compacted / "events").iterdir())
    assert days == [f"date={np.datetime64(20_000 + day, 'D')}" for day in range(3)]


def test_ranges_are_bounded_and_positions_beyond_int16_are_null(config, monkeypatch):
    monkeypatch.setattr(compaction, "RANGE_ROWS", 20)
    monkeypatch.setattr(compaction, "BATCH_EVENTS", 7)
    with SqliteWriter(Layout(config.state).event_log) as log:
        log.append([event(n) for n in range(39_980, 40_040)]).result()
    compact(config, quiet)
    ranges = list_ranges(Layout(config.state).compacted, "events")
    assert [(one.first, one.through) for one in ranges] == [(1, 21), (22, 42), (43, 60)]
    assert {row["position"] for row in read_all(config, "events")[:20]} == {None}


def test_slates_without_items_do_not_stop_it(config, monkeypatch):
    monkeypatch.setattr(compaction, "BATCH_SLATES", 4)
    with SqliteWriter(Layout(config.state).event_log) as log:
        log.append_slates([slate(n, items=0 if 3 < n < 14 else 2) for n in range(20)]).result()
    while compact(config, quiet).slates_through < 20:
        pass
    assert len(read_all(config, "impressions")) == 20


OPERATIONS = [(pq, "write_table"), (compacted_files, "_flush"), (compacted_files, "_digest"), (Path, "replace")]


class Interrupted(Exception):
    pass


def test_a_run_that_ends_after_any_file_operation_is_continued(config, monkeypatch):
    """Fail after the k-th operation, for every k, while the store grows: nothing is lost or copied twice."""
    monkeypatch.setattr(compaction, "RANGE_ROWS", 12)
    monkeypatch.setattr(compaction, "BATCH_EVENTS", 6)
    left = [0]

    def interruptible(original):
        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted
            return result

        return call

    for module, name in OPERATIONS:
        monkeypatch.setattr(module, name, interruptible(getattr(module, name)))
    interrupted, stored = 0, 0
    for k in range(1, 50):
        left[0] = 0
        fill(config, stored, stored + 6)
        stored += 6
        left[0] = k
        try:
            compact(config, quiet)
        except Interrupted:
            interrupted += 1
    left[0] = -1
    compact(config, quiet)
    assert 20 < interrupted < 49  # the last runs had fewer operations than k: each one was the last once
    for kind, per in (("events", 1), ("impressions", 3), ("changes", 1)):
        assert [row["offset"] for row in read_all(config, kind)] == [
            n for n in range(1, stored + 1) for _ in range(per)
        ]
    compact(config, quiet)
    for kind in KINDS:
        folder = Layout(config.state).compacted
        listed = {file.path for one in list_ranges(folder, kind) for file in one.files}
        assert listed == {path.relative_to(folder).as_posix() for path in (folder / kind).rglob("*.parquet")}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), r"is truncated: expected \d+ bytes, got \d+: restore"),
        (lambda path: path.unlink(), "is missing: restore it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9] + b"123456789"), "is damaged: expected SHA-256"),
    ],
)
def test_a_damaged_file_is_refused(config, damage, said):
    fill(config, 0, 5)
    compact(config, quiet)
    damage(next((Layout(config.state).compacted / "events").rglob("*.parquet")))
    with pytest.raises(DataError, match=said):
        read_all(config, "events")


def test_a_missing_or_damaged_range_is_refused(config, monkeypatch):
    monkeypatch.setattr(compaction, "RANGE_ROWS", 1)
    monkeypatch.setattr(compaction, "BATCH_EVENTS", 2)
    fill(config, 0, 6)
    compact(config, quiet)
    ranges = sorted((Layout(config.state).compacted / "ranges" / "events").iterdir())
    text = ranges[1].read_text()
    ranges[1].unlink()
    with pytest.raises(DataError, match="expected a range from offset 3, got 5 next"):
        list_ranges(Layout(config.state).compacted, "events")
    ranges[1].write_text(text[:20])
    with pytest.raises(Exception, match="empty or damaged"):
        list_ranges(Layout(config.state).compacted, "events")


def test_removed_rows_leave_no_file_behind(config):
    fill(config, 0, 30)
    compact(config, quiet)
    folder = Layout(config.state).compacted

    def find_others(rows):
        return np.array([user != "u1" for user in rows["user_id"].to_pylist()])

    assert rewrite_ranges(folder, "events", find_others) == 5
    assert rewrite_ranges(folder, "impressions", find_others) == 90
    assert rewrite_ranges(folder, "events", find_others) == 0
    assert {row["user_id"] for row in read_all(config, "events")} == {"u0", "u2", "u3", "u4", "u5", "u6"}
    assert not read_all(config, "impressions") and not list((folder / "impressions").rglob("*.parquet"))
    assert (read_position(folder, "events"), read_position(folder, "impressions")) == (30, 30)
    for path in folder.rglob("*.parquet"):
        assert "u1" not in pq.read_table(path).column("user_id" if "events" in str(path) else "id").to_pylist()
    fill(config, 30, 40)
    assert compact(config, quiet).events == 10
    assert rewrite_ranges(folder, "events", lambda rows: rows["offset"].to_numpy() != 31) == 1
    assert rewrite_ranges(folder, "events", lambda rows: rows["offset"].to_numpy() != 32) == 1
    assert len(read_all(config, "events")) == 33


@pytest.mark.slow
def test_kill_minus_nine_at_random_moments(config, rng):
    """Kill compaction processes while the store grows; at the end every offset is there once."""
    fill(config, 0, 1)  # creates the file
    code = (
        "from handsell.events import compaction; from handsell.config import load_config; import sys\n"
        "compaction.RANGE_ROWS = compaction.BATCH_EVENTS = 50\n"
        "config = load_config(sys.argv[1]); print('ready', flush=True)\n"
        "while True: compaction.compact(config, lambda text: None)\n"
    )
    killed, stored = 0, 1
    for _ in range(25):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(config.source)], stdout=subprocess.PIPE, env=dict(os.environ)
        )
        process.stdout.readline()
        for _ in range(4):
            fill(config, stored, stored + 200)
            stored += 200
        time.sleep(float(rng.uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert killed == 25
    compact(config, quiet)
    for kind, per in (("events", 1), ("impressions", 3), ("changes", 1)):
        assert [row["offset"] for row in read_all(config, kind)] == [
            n for n in range(1, stored + 1) for _ in range(per)
        ]
