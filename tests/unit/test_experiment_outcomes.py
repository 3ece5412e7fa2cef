"""Outcomes per unit from the event store and the compacted files: credit, windows, merges, days, covariates."""

import json

import numpy as np
import pytest

from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US, HOUR_US
from handsell.events.compaction import compact
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.experiments.analysis.log.outcome_tables import ExposureFilter, OutcomeWindows, open_outcomes

START = 20_000 * DAY_US + 10 * HOUR_US  # ten in the morning
CHOSEN = ExposureFilter(("control", "bold"), "test")
WINDOWS = OutcomeWindows(credit_hours=24, conversion_days=2, before_days=10)


@pytest.fixture
def config(configured, monkeypatch, tmp_path):
    (tmp_path / "shop [1]").mkdir()
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "shop [1]"))  # characters of patterns
    return configured('name = "shop"\n[data]\nformat = "world"\n')


class Log:
    """Writes slates and events to the store of a config, with numbers of their own."""

    def __init__(self, config):
        self.config, self.slates, self.events = config, [], []

    def show(self, user, at, arm="bold", items=("a", "b"), **more):
        n = len(self.slates)
        shown = {"item_id": list(items), "score": [0.5] * len(items), "propensity": [1.0] * len(items)}
        shown |= {"sources": [["x"]] * len(items)} | ({"arms": {"test": arm}} if arm else {}) | more
        self.slates.append(
            {
                "recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "time": START + int(at), "user_id": user,
                "surface": "home", "bundle": "b", "items": json.dumps(shown),
            }
        )  # fmt: skip
        return f"r{n}"

    def act(self, user, at, item="a", type="click", slate=None):
        n = len(self.events)
        event = {"event_id": f"e{n}", "user_id": user, "item_id": item, "type": type, "time": START + int(at)}
        self.events.append(event | ({"recommendation_id": slate} if slate else {}))

    def write(self, merges=()):
        with SqliteWriter(Layout(self.config.state).event_log) as store:
            store.append_slates(self.slates).result()
            store.append(self.events).result()
            for visitor, user in merges:
                store.merge_identity(visitor, user, START).result()


def read(config, until=None, chosen=CHOSEN, windows=WINDOWS):
    """Outcomes by unit id: dicts of the values of a row."""
    with open_outcomes(config, chosen, windows) as tables:
        found = tables.read(until)
    arrays = found.get_arrays()
    return {row["unit"]: row for row in ({n: a[i] for n, a in arrays.items()} for i in range(len(found)))}, found


def test_clicks_are_credited_by_slate_or_by_item_within_the_window(config):
    log = Log(config)
    first = log.show("u1", 0)
    log.act("u1", HOUR_US, "a", slate=first)
    log.act("u1", 2 * HOUR_US, "a", slate=first)  # the same item again: still one item clicked
    log.act("u1", 3 * HOUR_US, "b")  # no slate named: the last impression of b
    log.act("u1", 3 * HOUR_US, "c")  # never shown
    log.show("u2", 0, "control")
    log.act("u2", 25 * HOUR_US, "a")  # too late
    log.act("u2", HOUR_US, "b", slate="other")  # names a slate that is no exposure
    log.act("u2", HOUR_US, "a", type="dislike")
    log.write()
    rows, found = read(config)
    assert found.types == ("click", "like", "dislike") and found.arms == ("control", "bold")
    assert rows["u1"]["clicks"] == 2 and rows["u1"]["shown"] == 2 and rows["u1"]["arm"] == 1
    assert rows["u2"]["clicks"] == 0 and rows["u2"]["arm"] == 0
    assert rows["u1"]["events"].tolist() == [4, 0, 0] and rows["u2"]["events"].tolist() == [2, 0, 1]


def test_windows_count_from_the_first_exposure(config):
    log = Log(config)
    log.act("u1", -3 * DAY_US)
    log.act("u1", -20 * DAY_US)  # before the window of covariates
    log.show("u1", 0)
    log.act("u1", DAY_US + HOUR_US, type="like")
    log.act("u1", 7 * DAY_US + HOUR_US)
    log.show("u2", 0)
    log.act("u2", 3 * DAY_US, type="like")  # after the conversion window
    log.show("u3", 12 * DAY_US)
    log.write()
    rows, found = read(config)
    assert rows["u1"]["before"].tolist() == [1, 0, 0] and rows["u1"]["active_1"] and rows["u1"]["active_7"]
    assert rows["u1"]["converted"].tolist() == [False, True, False] and not rows["u2"]["converted"].any()
    assert not rows["u2"]["active_1"] and not rows["u2"]["active_7"] and rows["u3"]["slates"] == 1
    assert found.cold.tolist() == [unit != "u1" for unit in found.unit]


def test_outcomes_as_of_an_earlier_day(config):
    log = Log(config)
    first = log.show("u1", 0)
    log.act("u1", HOUR_US, slate=first)
    log.show("u1", DAY_US)
    log.act("u1", DAY_US + HOUR_US, "b")
    log.show("u2", DAY_US)
    log.write()
    with open_outcomes(config, CHOSEN, WINDOWS) as tables:
        looks = tables.list_looks()
        early, late = (tables.read(look) for look in looks)
    assert looks == [20_001 * DAY_US, START + DAY_US + HOUR_US + 1]
    assert early.unit.tolist() == ["u1"] and early.slates.tolist() == [1] and early.clicks.tolist() == [1]
    assert late.count_units().tolist() == [0, 2] and late.clicks.sum() == 2 and early.until == looks[0]


def test_store_and_compacted_files_together_are_the_same_as_the_store(config):
    log = Log(config)
    for n in range(40):
        slate = log.show(f"u{n % 10}", n * HOUR_US, ("control", "bold")[n % 10 % 2])
        log.act(f"u{n % 10}", n * HOUR_US + 1, slate=slate if n % 3 else None)
    log.write()
    before, _ = read(config)
    compact(config, print)
    again, _ = read(config)
    for n in range(40, 60):
        log.show(f"u{n % 10}", n * HOUR_US, ("control", "bold")[n % 10 % 2])
    log.write()
    after, _ = read(config)
    assert before.keys() == again.keys() and all(str(before[u]) == str(again[u]) for u in before)
    assert sum(row["slates"] for row in after.values()) == 60 and sum(row["clicks"] for row in after.values()) == 40


def test_days_before_the_start_are_not_read(config):
    log = Log(config)
    log.show("u1", -3 * DAY_US)
    log.act("u1", -2 * DAY_US)
    log.show("u1", 0)
    log.act("u1", -20 * DAY_US)
    log.write()
    compact(config, print)
    old = [p for p in Layout(config.state).compacted.glob("*/date=*/*") if p.parent.name < "date=2024-09-23"]
    assert len(old) == 1 and old[0].parent.parent.name == "events"
    old[0].unlink()
    rows, _ = read(config, chosen=ExposureFilter(("control", "bold"), "test", since=START))
    assert rows["u1"]["slates"] == 1 and rows["u1"]["before"].tolist() == [1, 0, 0]


def test_a_missing_file_is_named(config):
    log = Log(config)
    log.show("u1", 0)
    log.write()
    compact(config, print)
    next(Layout(config.state).compacted.glob("impressions/date=*/*")).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read(config)


def test_a_merged_visitor_is_one_unit_with_the_first_arm_and_each_event_once(config):
    log = Log(config)
    log.show("anonymous:v", 0, "control")
    log.act("anonymous:v", HOUR_US)
    log.write()
    compact(config, print)  # the visitor's rows are in the files under the visitor's id
    log.show("u1", DAY_US, "bold")
    log.show("u2", 0, "control")
    log.show("u2", 1, "bold")
    log.write(merges=[("anonymous:v", "u1")])
    rows, _ = read(config)
    assert set(rows) == {"u1", "u2"} and rows["u1"]["slates"] == 2 and rows["u1"]["events"].tolist() == [1, 0, 0]
    assert rows["u1"]["arm"] == 0 and not rows["u1"]["crossed"] and rows["u2"]["crossed"]
    assert rows["u1"]["merged"] and not rows["u2"]["merged"], "crossing over by a merge is told apart from a leak"


def test_slates_of_stopped_arms_other_experiments_and_nobody_are_no_exposures(config):
    log = Log(config)
    log.show("u1", 0, "control", stopped={"test": "bold"})
    log.show("u2", 0, None)
    log.show(None, 0)
    log.show("u3", 0, "gone")
    log.show("u4", 0, None, arms={"other": "bold"})
    log.write()
    rows, found = read(config)
    assert not rows and len(found) == 0 and found.events.shape == (0, 3)


def test_units_that_are_sessions_get_the_events_of_their_slates(config):
    log = Log(config)
    first = log.show("u1", 0, "control", units={"test": "s1"})
    log.show("u1", 2 * DAY_US, "bold", units={"test": "s2"})
    log.act("u1", HOUR_US, slate=first)
    log.act("u1", 2 * DAY_US + HOUR_US, "b")  # names no slate: of the session of the last one
    log.act("u1", 9 * DAY_US)  # in no session
    log.write()
    rows, _ = read(config, chosen=ExposureFilter(("control", "bold"), "test", unit="session"))
    assert {unit: (row["arm"], row["clicks"], row["events"][0]) for unit, row in rows.items()} == {
        "s1": (0, 1, 1), "s2": (1, 1, 1),
    }  # fmt: skip


def test_a_plan_takes_every_slate_of_a_surface_as_an_exposure(config):
    log = Log(config)
    log.show("u1", 0, None)
    log.show("u2", DAY_US)
    log.write()
    whole = ExposureFilter(("control",), None, surfaces=("home",), since=START)
    assert set(read(config, chosen=whole)[0]) == {"u1", "u2"}
    assert not read(config, chosen=ExposureFilter(("control",), None, surfaces=("push",)))[0]


def test_an_empty_store_has_no_outcomes(config):
    rows, found = read(config)
    assert not rows and found.count_units().tolist() == [0, 0]


def test_bots_are_visible_by_their_busiest_hour(config):
    log = Log(config)
    for n in range(150):
        log.show("bot", n * 1_000_000)
    log.show("u1", 0)
    log.write()
    rows, _ = read(config)
    assert rows["bot"]["busiest_hour"] == 150 and rows["u1"]["busiest_hour"] == 1
    assert rows["bot"]["first_day_slates"] == 150 and isinstance(rows["u1"]["first"], np.int64)
