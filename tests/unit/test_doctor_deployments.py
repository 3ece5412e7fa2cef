"""The doctor on settings and tables with which training would fail, or recommend nothing."""

import json
import re
import time
from functools import cache

import numpy as np
import pytest

from handsell.core.errors import ConfigError, DataError
from handsell.data.config import EventType
from handsell.data.weights import compute_event_weights, find_threshold_problem
from handsell.doctor.counters import HourSpans
from handsell.doctor.inspection import examine, find_problems
from handsell.jobs.features.feature_tables import require_distinct_columns

DAY = 86_400
START = 1_767_225_600  # 2026-01-01
DAYS = 30
TABLES = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events.csv"
[data.tables.items]
path = "items.csv"
[data.tables.users]
path = "users.csv"
"""
TYPES = "[events.types]\nview = { weight = 1.0 }\ncart = { weight = 2.0 }\n"
CLOCK = '[serving]\nclock = "data"\n'
ITEMS = [
    {"item_id": f"i{k}", "tags": "a|b", "price": f"{k}.5", "material": "oak" if k else "", "new": "true", "size": "7"}
    for k in range(60)
]
USERS = [{"user_id": f"u{k}", "age": str(20 + k), "country": "CH"} for k in range(40)]


def write_table(path, rows):
    names = list(rows[0])
    path.write_text("\n".join(",".join(map(str, row)) for row in [names, *(r.values() for r in rows)]) + "\n")


@cache
def draw_events(start=START, days=DAYS, count=2_400):
    rng = np.random.default_rng(5)
    at = np.sort(start + rng.integers(days * DAY, size=count))
    return [
        {"user_id": f"u{rng.integers(40)}", "item_id": f"i{rng.integers(60)}", "time": int(t), "type": "view"}
        for t in at
    ]


@pytest.fixture
def errors(tmp_path, configured):
    """Function from settings and tables to name → finding, of the errors alone or of all severities."""

    def report(settings="", events=None, items=ITEMS, users=USERS, types=TYPES, clock=CLOCK, severity="error"):
        write_table(tmp_path / "events.csv", draw_events() if events is None else events)
        write_table(tmp_path / "items.csv", items)
        write_table(tmp_path / "users.csv", users)
        found = examine(configured(TABLES + types + clock + settings)).problems
        return {p.name: p for p in found if p.severity == severity}

    return report


def with_column(rows, **columns):
    return [
        {**row, **{name: value(k) if callable(value) else value for name, value in columns.items()}}
        for k, row in enumerate(rows)
    ]


def test_a_sound_deployment_has_no_error(errors):
    columns = """
[features]
item_columns = ["price", "new", "size"]
user_columns = ["age"]
user_attributes = { country = "text" }
"""
    surfaces = """
[surfaces.home]
filter = "item.price > 3 and 'a' in item.tags"
[surfaces.email]
filter = "user.country == 'CH'"
"""
    assert errors(columns + surfaces) == {}
    assert errors(columns, severity="warning") == {}


@pytest.mark.parametrize(
    ("types", "name", "said"),
    [
        ("view = { weight = -1.0 }\ncart = { weight = -2 }\n", "no positive weight", "(view -1, cart -2)"),
        ("view = { weight = 0.0 }\n", "no positive weight", "(view 0)"),
        ("view = { weight = 1, seen = false }\n", "no positive weight", "(none with seen = true)"),
        ("view = { weight = -1.0 }\ncart = {}\n", "no positive event", "events by type: view 2,400, cart 0"),
    ],
)
def test_without_anything_positive_there_is_nothing_to_learn(errors, types, name, said):
    found = errors(types="[events.types]\n" + types)
    assert said in found[name].message and "above 0 in [events.types]" in found[name].message
    assert set(found) == {name}


@pytest.mark.parametrize("steps", [[[4, 1.0], [1, -1.0], [3, 0.5]], [[1, 1.0], [1, 2.0]], [[1e9, 1.0], [1e9 + 1, 2.0]]])
def test_thresholds_out_of_order_are_an_error_that_shows_the_order(errors, steps):
    found = errors(types=f"[events.types]\nview = {{ weight_by_value = {json.dumps(steps)} }}\n")["thresholds"]
    assert "events.types.view.weight_by_value" in found.message and "ascending order" in found.message
    assert f"write {sorted([float(value), weight] for value, weight in steps)}" in found.message
    kind = EventType(weight_by_value=tuple(map(tuple, steps)))
    assert find_threshold_problem("view", kind) == found.message
    with pytest.raises(ConfigError, match="ascending order"):
        compute_event_weights(np.zeros(1, np.int8), np.ones(1, np.float32), _one_type(kind))


def _one_type(kind):
    from handsell.data.config import EventsConfig

    return EventsConfig(types={"view": kind})


def test_a_threshold_that_is_no_number_is_an_error(errors):
    found = errors(types="[events.types]\nview = { weight_by_value = [[1, nan], [inf, 1.0]] }\n")["thresholds"]
    assert "expected finite numbers" in found.message


def test_types_by_value_without_values_are_a_warning(errors):
    found = errors(types="[events.types]\nview = { weight_by_value = [[1, 1.0]] }\n", severity="warning")
    assert found["no value of view"].count == 2_400 and "map the column `value`" in found["no value of view"].message


@pytest.mark.parametrize(
    ("features", "name", "said", "example"),
    [
        ('item_columns = ["cost"]', "missing column cost", "price, material", None),
        ('user_columns = ["height"]', "missing column height", "user_id, age, country", None),
        ('user_attributes = { shoe = "number" }', "missing column shoe", "user_attributes", None),
        ('item_columns = ["material"]', "values of material", "expected numbers", ("item_id", "i1")),
        ('item_columns = ["title"]', None, "", None),
        ('item_columns = ["tags"]', "values of tags", "expected numbers", ("item_id", "i0")),
        ('user_columns = ["country"]', "values of country", "expected numbers", ("user_id", "u0")),
        ('user_attributes = { country = "true or false" }', "values of country", "true or false", ("user_id", "u0")),
    ],
)  # fmt: skip
def test_feature_columns_are_there_and_of_their_kind(errors, features, name, said, example):
    found = errors(f"[features]\n{features}\n")
    if name is None:  # a column of nulls is no error
        assert not found
        return
    assert said in found[name].message
    if example:
        assert found[name].examples[0][example[0]] == example[1]


def test_one_late_text_among_numbers_is_shown_with_its_row(errors):
    items = with_column(ITEMS, price=lambda k: "on request" if k == 50 else str(k))
    found = errors('[features]\nitem_columns = ["price"]\n', items=items)["values of price"]
    assert found.count == 1 and found.examples == [{"row": 51, "line": 52, "item_id": "i50", "price": "on request"}]


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        ('[features]\nitem_columns = ["item_number"]\n', "column name taken", "item_number is also the name"),
        ('[features]\nuser_columns = ["age", "age"]\n', "column name taken", "age is also the name"),
        ('[ranking]\nwithout = ["nonsense"]\n', "unknown ranker feature", "nonsense"),
        ("[jobs]\ngcs_port = 8265\n", "same port", "jobs.gcs_port and jobs.dashboard_port are all 8265"),
        ("[jobs]\ndashboard_port = 8000\n", "same port", "serving.port and jobs.dashboard_port are all 8000"),
        ("[jobs]\ngcs_port = 19_999\n", "port of Ray's workers", "jobs.gcs_port = 19999"),
        ("[jobs]\ngcs_port = 10_002\n", "port of Ray's workers", "above 19999"),
    ],
)
def test_names_and_ports_that_collide(errors, settings, name, said):
    items, users = with_column(ITEMS, item_number=1), USERS
    assert said in errors(settings, items=items, users=users)[name].message
    assert errors("[jobs]\ngcs_port = 20_000\ndashboard_port = 10_001\n") == {}


def test_the_features_step_refuses_a_column_name_that_is_taken(configured):
    with pytest.raises(DataError, match="item_profile does not have, each once; got item_number"):
        require_distinct_columns(configured(TABLES + '[features]\nitem_columns = ["item_number"]\n'))
    require_distinct_columns(configured(TABLES + '[features]\nitem_columns = ["price"]\n'))


def test_event_types_of_one_column(errors):
    types = TYPES + '"add-to-cart" = {}\nadd_to_cart = {}\n'
    assert "'add-to-cart', 'add_to_cart'" in errors(types=types)["event type names"].message


@pytest.mark.parametrize(
    ("surface", "said"),
    [
        ("home", "there is no item.colour"),
        ("email", "did you mean item.price"),
        ("similar", "there is no user.shoe"),
        ("push", "column 14"),
    ],
)  # fmt: skip
def test_filters_of_unknown_attributes_are_errors(errors, surface, said):
    filters = {
        "home": "item.colour == 'red'",
        "email": "item.prise > 3",
        "similar": "user.shoe > 3",
        "push": "item.price > ",
    }
    home = "" if surface == "home" else "[surfaces.home]\n"
    found = errors(f'{home}[surfaces.{surface}]\nfilter = "{filters[surface]}"\n')
    assert said in found[f"filter of {surface}"].message
    assert f"surfaces.{surface}.filter ({filters[surface]})" in found[f"filter of {surface}"].message


@pytest.mark.parametrize(
    ("rule", "name", "said"),
    [
        ("items = \"item.colour == 'red'\"", "rules", "there is no item.colour"),
        ("items = 'item.price > 0'", "nothing to recommend on home", "rules.toml leave none of the 60"),
        ("items = 'item.price > 0'\nsurfaces = ['mail']", "rules", "got 'mail'"),
        ("itms = 'x'", "rules", "itms"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_or_exclude_everything(errors, tmp_path, rule, name, said):
    (tmp_path / "rules.toml").write_text(f'[[rule]]\nname = "r"\nkind = "exclude"\n{rule}\n')
    assert said in errors('[reranking]\nrules = "rules.toml"\n')[name].message
    (tmp_path / "rules.toml").unlink()
    assert "cannot be read" in errors('[reranking]\nrules = "rules.toml"\n')["rules"].message


def test_a_filter_that_nothing_passes_and_one_that_little_passes(errors):
    filters = """
[surfaces.home]
[surfaces.mail]
filter = "'zzz' in item.tags"
[surfaces.few]
filter = "item.price < 3"
"""
    assert "surfaces.mail.filter" in errors(filters)["nothing to recommend on mail"].message
    assert "can be shown about 1 there" in errors(filters, severity="warning")["short slates on few"].message
    of_users = """
[features]
user_attributes = { country = "text" }
[surfaces.home]
[surfaces.mail]
filter = "user.country == 'XX'"
"""
    assert "nothing to recommend on mail" in errors(of_users)
    assert errors(of_users.replace("XX", "CH")) == {}


@pytest.mark.parametrize(
    ("columns", "name", "said"),
    [
        ({"expires_at": "2026-01-20T00:00:00Z"}, "nothing to recommend", "60 of 60 have expired (expires_at)"),
        ({"published_at": "2027-01-01T00:00:00Z"}, "nothing to recommend", "60 of 60 are published later"),
        ({"available": "false"}, "nothing to recommend", "60 of 60 are not available"),
        ({"available": lambda k: "true" if k > 57 else "false"}, "nearly nothing to recommend", "only 2 of 60 items"),
    ],
)
def test_items_that_are_not_available_at_request_time(errors, columns, name, said):
    found = errors(items=with_column(ITEMS, **columns))[name]
    assert said in found.message and re.search(r'end of the log \(\S+ to \S+, serving.clock = "data"', found.message)
    assert found.examples[0]["item_id"] == "i0"


def test_available_items_without_a_positive_event(errors):
    new = [{**row, "item_id": f"new{k}"} for k, row in enumerate(ITEMS)]
    items = with_column([*ITEMS, *new], available=lambda k: "true" if k >= 60 else "false")
    earlier = "[split]\nranker_days = 1\nvalidation_days = 1\ntest_days = 1\n"
    assert "nothing to recommend" not in errors(earlier, items=items)
    found = errors(items=items, severity="warning")["nothing for new users"]
    assert "none of the 60 items that are available" in found.message
    bare = errors(items=[{**row, "tags": ""} for row in items])["nothing to recommend"]
    assert "none of the 60 items that are available at the end of the log" in bare.message


def test_only_the_cause_of_errors_is_reported(errors):
    items = with_column(ITEMS, item_id=lambda k: f"sku-{k}")
    assert set(errors(items=items)) == {"different item_id"}
    assert set(errors(items=items, severity="warning")) == set()
    wish = [{**row, "type": "wish"} for row in draw_events()]
    assert set(errors(events=wish)) == {"unknown event type"}


def test_windows_of_new_items_without_content(errors):
    end = max(row["time"] for row in draw_events())
    events = [{**row, "item_id": f"{row['item_id']}-{(end - row['time']) // DAY}"} for row in draw_events()]
    items = [{**ITEMS[0], "item_id": name, "tags": ""} for name in sorted({row["item_id"] for row in events})]
    assert (
        "no item of the windows has earlier events"
        in errors(events=events, items=items)["new items in the windows"].message
    )
    assert errors(events=events, items=[{**row, "tags": "a"} for row in items]) == {}


def test_users_who_have_seen_everything_get_nothing_where_repeats_are_excluded(errors):
    events = [{**row, "item_id": f"i{int(row['item_id'][1:]) % 8}"} for row in draw_events()]
    found = errors(events=events, items=ITEMS[:8])["everything seen on home"]
    assert "surfaces.home.repeat" in found.message and 'set repeat = "allow"' in found.message
    assert errors('[surfaces.home]\nrepeat = "allow"\n', events=events, items=ITEMS[:8]) == {}


def test_an_old_log_on_the_wall_clock_names_the_clock(errors):
    old = draw_events(start=1_700_000_000)
    items = with_column(ITEMS, expires_at="2024-08-26T20:00:00Z")
    found = errors(events=old, items=items, clock="")
    assert 'set serving.clock = "data"' in found["old log"].message and "days old" in found["old log"].message
    assert 'set serving.clock = "data" to replay an old log' in found["nothing to recommend"].message
    assert "old log" in errors(events=old, clock="") and errors(events=old) == {}


def test_the_age_of_a_log_is_a_warning_first(errors):
    now = int(time.time())
    aging, fresh = draw_events(start=now - (DAYS + 30) * DAY), draw_events(start=now - (DAYS + 1) * DAY)
    assert errors(events=aging, clock="") == {} and "old log" in errors(events=aging, clock="", severity="warning")
    assert "old log" not in errors(events=fresh, clock="", severity="warning")


def test_windows_whose_liked_items_were_not_available(errors):
    end = START + DAYS * DAY
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end - 13 * DAY))
    items = with_column(
        [*ITEMS, *({**row, "item_id": f"n{k}"} for k, row in enumerate(ITEMS))],
        expires_at=lambda k: until if k < 60 else "",
    )
    found = errors(items=items)
    assert "available in the ranker and validation and test window" in found["empty window"].message


def test_last_k_windows_without_a_positive_event(errors):
    events = [{**row, "type": "view" if row["time"] > START + 2 * DAY else "cart"} for row in draw_events()]
    split = '[split]\nkind = "leave_last_k"\nranker_k = 2\nvalidation_k = 1\ntest_k = 1\n'
    types = "[events.types]\nview = { weight = -1.0 }\ncart = { weight = 1.0 }\n"
    assert errors(split, events=events) == {}
    late = [{**row, "type": "cart" if k < 1 else "view"} for k, row in enumerate(events)]
    assert "raise split.test_k" in errors(split, events=late, types=types)["empty window"].message


@pytest.mark.parametrize(("column", "name"), [("user_id", "one user"), ("item_id", "one item")])
def test_all_positive_events_of_one_user_or_item(errors, column, name):
    events = [{**row, "type": "cart" if row[column][1:] != "1" else "view"} for row in draw_events()]
    found = errors(events=events, types="[events.types]\nview = { weight = 1 }\ncart = { weight = -1 }\n")
    assert f"check the mapping of {column}" in found[name].message


def test_a_slate_longer_than_the_catalog_is_a_warning(errors):
    items = [row for k, row in enumerate(ITEMS) if k < 20]
    events = [{**row, "item_id": f"i{int(row['item_id'][1:]) % 20}"} for row in draw_events()]
    found = errors("[surfaces.home]\ncount = 30\n", events=events, items=items, severity="warning")
    assert "surfaces.home.count is 30, and a user can be shown about" in found["short slates on home"].message


def test_generated_events_are_not_examined_but_settings_are(configured):
    world = 'name = "w"\n[data]\nformat = "world"\n[data.world]\nusers = 40\nitems = 60\nartists = 9\ndays = 5\n'
    assert [p for p in find_problems(configured(world)) if p.severity == "error"] == []
    config = configured(world + '[features]\nitem_columns = ["cost"]\n[surfaces.home]\nfilter = "item.x > 1"\n')
    assert [p.name for p in find_problems(config)] == ["missing column cost", "filter of home"]


def test_hour_spans_find_events_in_windows(rng):
    time_us = rng.integers(0, 50 * 3_600_000_000, 300)
    spans = HourSpans()
    for part in np.array_split(time_us, 7):
        spans.add(part)
    for begin in rng.integers(0, 50 * 3_600_000_000, 50).tolist():
        end = begin + 2 * 3_600_000_000
        assert spans.touches(begin, end) == bool(((time_us >= begin) & (time_us < end)).any())
    assert not HourSpans().touches(0, 10**18)
