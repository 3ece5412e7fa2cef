"""The doctor on planted problems, and on data where a recommender does not fit."""

import io
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from handsell.config import load_config
from handsell.core.hashing import hash_rows
from handsell.data.readers.base import build_event_batch, drop_incomplete
from handsell.data.schemas import TIME
from handsell.doctor.counters import DistinctCounter, IdStatistics
from handsell.doctor.inspection import examine, render
from handsell.doctor.repeat_checks import RepeatChecks

DAY = 86_400
START = 1_767_225_600  # 2026-01-01
SHOP = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events.csv"
[events.types]
impression = { weight = 0.0, seen = false }
view = { weight = 1.0 }
[serving]
clock = "data"
"""
ITEMS = '[data.tables.items]\npath = "items.csv"\n'
LAST_K = '[split]\nkind = "leave_last_k"\nranker_k = 2\nvalidation_k = 1\ntest_k = 1\n'


@pytest.fixture
def shop(tmp_path, configured):
    """Function from rows (event_id, user, item, time, type) to report."""

    def report(rows, more="", items=None):
        lines = ["event_id,user_id,item_id,time,type", *(",".join(map(str, row)) for row in rows)]
        (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
        if items is not None:
            (tmp_path / "items.csv").write_text(items)
        return examine(configured(SHOP + more))

    return report


def healthy(users=60, items=80, days=40, each=60):
    """Rows of a log without problems."""
    rng = np.random.default_rng(3)
    rows = []
    for k in range(users * each):
        at = START + int(rng.integers(days * DAY))
        rows.append((f"e{k}", f"u{k % users}", f"i{rng.integers(items)}", at, "view"))
    return rows


def problem(report, name):
    found = {p.name: p for p in report.problems}
    assert name in found, f"{name} not among {list(found)}"
    return found[name]


def test_a_healthy_log_has_counts_and_no_problem(shop):
    rows = [*healthy(), *((f"s{k}", f"u{k}", "i1", START + k, "impression") for k in range(20))]
    f = shop(rows)
    assert f.ok and [p.name for p in f.problems] == ["no items"]
    assert (f.events, f.interactions, f.users, f.items) == (3_620, 3_600, 60, 80)
    assert f.types["view"].events == 3_600 and f.types["impression"].events == 20
    assert f.pairs == len({(r[1], r[2]) for r in rows if r[4] == "view"})
    assert f.density == pytest.approx(f.pairs / (60 * 80))
    assert (f.per_user.median, f.per_user.most) == (60, 60)
    assert f.first.startswith("2026-01-01T0") and 39 < f.days <= 40
    assert f.advice == ["Enough data to train all models."]
    assert f.cold_users == 0


def test_each_planted_problem_is_counted_with_examples(shop):
    bad = [
        ("x1", "", "i1", START + 9, "view"),
        ("x2", "u1", "", START + 9, "view"),
        ("x3", "u1", "i1", "", "view"),
        ("x4", "u1", "i1", 0, "view"),
        ("x5", "u1", "i1", int(time.time()) + 30 * DAY, "view"),
        ("x6", "u1", "i1", START + 9, "wish"),
        ("x6", "u1", "i1", START + 9, "wish"),
        ("x7", "u1", "ghost", START + 9, "view"),
        ("x8", "u1", "ghost", START + 9, "view"),
    ]
    items = "item_id,title,tags,published_at\n" + "".join(f"i{k},T,a,\n" for k in range(79))
    items += "i79,Late,a,2026-06-01T00:00:00Z\ni0,Twice,a,\nlonely,L,,\n"
    f = shop(healthy() + bad, ITEMS, items)
    assert not f.ok
    for name in ("null user_id", "null item_id", "null time", "time at the epoch", "time in the future"):
        assert problem(f, name).count == 1
    assert problem(f, "null user_id").examples[0]["row"] == 3_601
    assert problem(f, "unknown event type").count == 2 and problem(f, "unknown event type").severity == "error"
    assert f.types["wish"].weight is None
    assert problem(f, "duplicate events").count == 1  # x6
    assert problem(f, "unknown item_id").count == 2
    assert problem(f, "deleted items").count == 1
    assert problem(f, "deleted items").examples == [{"item_id": "ghost", "events": "2"}]
    assert problem(f, "unknown item_id").examples[0]["item_id"] == "ghost"
    assert problem(f, "equal events").count == 1  # x7 and x8
    assert problem(f, "duplicate item_id").examples == [{"item_id": "i0", "rows": 2}]
    assert problem(f, "used before published").examples[0]["item_id"] == "i79"
    assert problem(f, "bare items").examples == [{"item_id": "lonely", "title": "L"}]
    assert f.untouched_items == pytest.approx(1 / 81)


def test_events_in_the_future_decide_nothing_and_many_are_an_error(shop):
    early = ("x1", "new", "i1", int(time.time()) + 3600, "view")
    far = ("x2", "u1", "i1", int(time.time()) + 70 * 365 * DAY, "view")
    f, sound = shop([*healthy(), early, far]), shop(healthy())
    assert f.ok and problem(f, "time in the future").severity == "warning"
    assert [e["row"] for e in problem(f, "time in the future").examples] == [3_601, 3_602]
    assert (f.last, f.days, f.interactions, f.users) == (sound.last, sound.days, sound.interactions, sound.users)
    f = shop([*healthy(), *((f"y{k}", "u1", "i1", int(time.time()) + DAY + k, "view") for k in range(190))])
    assert not f.ok and "more than 5% of the events in the future: probably" in problem(f, "time in the future").message
    f = shop([*healthy(), ("x3", "u1", "i1", 253_402_214_400, "view")])
    assert not f.ok and problem(f, "time that means never").examples[0]["row"] == 3_601


def test_repeated_events_are_told_apart_with_examples(shop):
    at = START + 9
    more = [
        ("o1", "u1", "i1", at, "view"),
        ("o1", "u1", "i2", at, "view"),  # a line of the same order
        ("o1", "u1", "i1", at, "view"),  # delivered twice
        ("", "u2", "i1", at, "view"),
        ("", "u2", "i1", at, "view"),  # twice, without an id
        ("o3", "u1", "i1", at, "view"),  # the same with another id
    ]
    f, first = shop(healthy() + more), len(healthy()) + 1
    assert f.ok
    found = {name: problem(f, name) for name in ("duplicate events", "repeated event_id", "equal events")}
    assert {name: p.count for name, p in found.items()} == {
        "duplicate events": 2, "repeated event_id": 1, "equal events": 1,
    }  # fmt: skip
    rows = {name: [(e["row"], e["like_row"]) for e in p.examples] for name, p in found.items()}
    assert rows == {
        "duplicate events": [(first + 2, first), (first + 4, first + 3)],
        "repeated event_id": [(first + 1, first)],
        "equal events": [(first + 5, first)],
    }
    assert found["repeated event_id"].examples[0]["event_id"] == "o1"


def test_repeats_are_found_across_batches():
    def add(checks, *rows):
        names = ("event_id", "user_id", "item_id", "type", "value")
        columns = {name: pa.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
        columns |= {"value": columns["value"].cast(pa.float32()), "time": pa.array([START] * len(rows), TIME)}
        batch = drop_incomplete(build_event_batch(columns))
        checks.add(batch, np.arange(len(batch)) + checks.keys.rows + 1)

    checks = RepeatChecks()
    add(checks, ("e1", "u", "a", "rating", 1.0), ("e2", "u", "b", "rating", 1.0))
    add(checks, ("e1", "u", "a", "rating", 4.0), ("e2", "u", "c", "rating", 1.0))
    found = {finding.name: (finding.count, [e["like_row"] for e in finding.examples]) for finding in checks.find()}
    assert found == {
        "duplicate events": (1, [1]), "duplicates with another value": (1, [1]), "repeated event_id": (1, [2]),
    }  # fmt: skip


def test_cold_users_of_the_test_window(shop):
    end = START + 40 * DAY
    rows = [*healthy(), *((f"n{k}", f"new{k}", "i1", end + k, "view") for k in range(40))]
    f = shop(rows, "[split]\ntest_days = 0.01\nvalidation_days = 1\nranker_days = 1\n")
    recent = {r[1] for r in rows if r[3] > end + 39 - 864}
    assert f.cold_users == pytest.approx(40 / len(recent))
    assert f.cold_items == 0


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (healthy(items=12), "too few for a recommender"),
        (healthy(users=1), "One user"),
        (healthy(items=1), "One item: there is nothing"),
        (healthy(users=20, each=20), "too few for learned models"),
    ],
)
def test_advice_says_where_a_recommender_does_not_fit(shop, rows, advice):
    assert any(advice in line for line in shop(rows, LAST_K).advice)


def test_a_window_without_interactions_is_an_error(shop):
    rows = healthy()
    end = max(r[3] for r in rows)
    gap = [r for r in rows if not end - 6 * DAY < r[3] <= end - 3 * DAY]  # the default validation window
    found = problem(shop(gap), "empty window")
    assert found.severity == "error" and "validation window: lengthen split.validation_days" in found.message
    later = [*rows, ("late", "u1", "i1", end + 100 * DAY, "view")]
    assert "ranker and validation window" in problem(shop(later), "empty window").message
    assert all(p.name != "empty window" for p in shop(rows).problems)


def test_identical_times_short_logs_and_thin_users(shop):
    assert problem(shop([(*r[:3], START, r[4]) for r in healthy()]), "identical times").severity == "error"
    assert problem(shop(healthy(days=5)), "log too short").severity == "error"
    assert problem(shop(healthy(users=10)), "thin test window").severity == "warning"
    assert problem(shop(healthy(each=3), LAST_K), "thin users").severity == "error"


@pytest.mark.parametrize(
    ("write", "cause", "shown"),
    [
        (lambda k: f"{k}.0", "whole numbers as decimals", "'1001.0'"),
        (lambda k: f" {k} ", "spaces around its ids", "' 1001 '"),
        (lambda k: f"000{k}", "leading zeros", "'0001001'"),
        (lambda k: f"{k}.0 ", "differ in spaces, case, decimals", "'1001.0 '"),
        (lambda k: f"sku-{k}", "ids of different kinds", "'sku-1001'"),
        (lambda k: f"{k // 1000}-{k % 1000:03d}", "signs such as dashes", "'1-001'"),
        (lambda k: f"{{{k}}}", "signs such as dashes", "'{1001}'"),
        (lambda k: f"{k}\u200b", "signs such as dashes", r"'1001\u200b'"),
        (lambda k: f"item_{k}", "text before the number", "'item_1001'"),
    ],
)
def test_tables_that_share_almost_no_id_are_an_error(shop, write, cause, shown):
    rows = [(*r[:2], write(1_001 + k % 80), *r[3:]) for k, r in enumerate(healthy())]
    items = "item_id,tags\n" + "".join(f"{k},a\n" for k in range(1_001, 1_200))
    found = problem(shop(rows, ITEMS, items), "different item_id")
    assert found.severity == "error" and cause in found.message
    assert shown in found.message and "'1001'" in found.message
    if "kinds" not in cause:
        assert found.examples[0] == {"events": shown, "items": "'1001'"}


@pytest.mark.parametrize(
    ("write", "cause"),
    [(lambda k: f"i{k}.0", "whole numbers as decimals"), (lambda k: f"i{k} ", "spaces around its ids")],
)
def test_ids_of_a_part_of_the_events_in_another_spelling_are_an_error(shop, write, cause):
    rows = [(*r[:2], write(r[2][1:]) if k % 3 else r[2], *r[3:]) for k, r in enumerate(healthy())]
    items = "item_id,tags\n" + "".join(f"i{k},a\n" for k in range(80))
    report = shop(rows, ITEMS, items)
    found = problem(report, "different item_id")
    assert found.severity == "error" and "80 of 160 item_ids" in found.message and cause in found.message
    assert found.examples[0]["items"] == f"'i{found.examples[0]['events'][2:].split('.')[0].rstrip(chr(39)).strip()}'"
    assert all(p.name != "deleted items" for p in report.problems)


def test_user_ids_in_another_case_are_an_error(shop, tmp_path):
    (tmp_path / "users.csv").write_text("user_id\n" + "".join(f"U{k}\n" for k in range(60)))
    found = problem(shop(healthy(), '[data.tables.users]\npath = "users.csv"\n'), "different user_id")
    assert found.severity == "error" and "upper and lower case" in found.message
    assert found.examples[0] == {"events": "'u0'", "users": "'U0'"}


@pytest.mark.parametrize("described", [range(3), range(40, 4_000)])
def test_a_table_of_few_or_many_other_items_uses_the_same_ids(shop, described):
    items = "item_id,tags\n" + "".join(f"i{k},a\n" for k in described)
    assert all(p.name != "different item_id" for p in shop(healthy(), ITEMS, items).problems)


def test_long_ids_are_refused_with_rows_and_cut_in_examples(shop, tmp_path):
    (tmp_path / "users.csv").write_text("user_id\nu1\n" + "ü" * 256 + "\n" + "y" * 257 + "\n")
    rows = [*healthy(), ("x1", "t" * 20_000, "i1", START, "view"), ("x2", "t" * 256, "i" * 257, START, "view")]
    items = "item_id,tags\n" + "".join(f"i{k},a\n" for k in range(80)) + "z" * 300 + ",a\n"
    f = shop(rows, ITEMS + '[data.tables.users]\npath = "users.csv"\n', items)
    user = problem(f, "long user_id")
    assert (user.severity, user.count, user.examples[0]["row"]) == ("error", 1, 3_601)
    assert user.examples[0]["user_id"] == "t" * 60 + "… (20,000 characters)"
    assert "more than 256 characters" in user.message
    assert problem(f, "long item_id").examples[0]["row"] == 3_602
    assert problem(f, "long item_id in items").examples[0]["row"] == 81
    assert problem(f, "long user_id in users").count == 1


def test_skipped_files_of_a_folder_are_reported(shop, tmp_path):
    (tmp_path / "items").mkdir()
    (tmp_path / "items/a.CSV").write_text("item_id,tags\n" + "".join(f"i{k},a\n" for k in range(80)))
    (tmp_path / "items/b.xlsx").write_text("x")
    (tmp_path / "items/c.csv").write_text("")
    f = shop(healthy(), '[data.tables.items]\npath = "items"\n')
    skipped = problem(f, "skipped files")
    assert f.ok and f.described_items == 80 and skipped.count == 2
    assert skipped.examples[1]["file"].endswith("c.csv") and skipped.examples[1]["reason"] == "the file is empty"


def test_no_events_at_all(shop):
    f = shop([])
    assert problem(f, "no events").severity == "error" and not f.ok
    assert f.advice == ["No interactions: there is nothing to learn from. Add events of a type with seen = true."]
    assert (f.first, f.days, f.density) == (None, 0, 0)


def test_the_rendering_shows_counts_problems_and_examples(shop):
    text = io.StringIO()
    render(shop([*healthy(), ("x", "u1", "i1", 0, "wish[/bold]")]), Console(file=text, width=140))
    shown = text.getvalue()
    assert "3,601, of which 3,600 interactions" in shown
    assert "time at the epoch (1)" in shown and "row=3601, line=3602, user_id=u1" in shown
    assert "wish[/bold]" in shown and "not in [events.types]" in shown
    assert "not ready" in shown


@pytest.mark.data
def test_real_movielens_is_ready(test_data, repository, monkeypatch):
    monkeypatch.setenv("HANDSELL_DATA", str(test_data("ml-latest-small")))
    f = examine(load_config(repository / "deployments/configs/movielens.toml"))
    assert f.ok
    assert (f.events, f.users, f.items, f.described_items, f.pairs) == (100_004, 671, 9_066, 9_125, 100_004)
    assert f.untouched_items == pytest.approx(59 / 9_125)


def test_id_statistics_by_batches_equals_all_at_once(rng, monkeypatch):
    monkeypatch.setattr("handsell.doctor.counters.COMPACT_ROWS", 10)
    ids, at = rng.integers(20, size=500), rng.integers(1_000, size=500)
    statistics = IdStatistics()
    for rows in np.array_split(np.arange(500), 17):
        statistics.add(
            pa.array([f"u{i}" for i in ids[rows]]), pa.array(at[rows], pa.timestamp("us", "UTC")), at[rows] % 2 > 0
        )
    for row in (
        statistics.table()
        .cast(pa.schema([("id", pa.string()), *((n, pa.int64()) for n in ("count", "first", "last", "positive"))]))
        .to_pylist()
    ):
        own = at[ids == int(row["id"][1:])]
        assert (row["count"], row["first"], row["last"]) == (len(own), own.min(), own.max())
        assert row["positive"] == (own % 2).sum()


def test_distinct_counter_is_exact_below_the_limit_and_close_above_it(rng):
    keys = rng.integers(50_000, size=200_000)
    exact, rough = DistinctCounter(), DistinctCounter(limit=2_000)
    for rows in np.array_split(keys, 20):
        mixed = hash_rows(pa.array(rows))
        exact.add(mixed)
        rough.add(mixed)
    truth = len(np.unique(keys))
    assert exact.exact and (exact.count, exact.repeats) == (truth, 200_000 - truth)
    assert not rough.exact and rough.count == pytest.approx(truth, rel=0.1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), min_size=1, max_size=40))
def test_row_hashes_are_equal_exactly_where_rows_are_equal(rows):
    left, right = (pa.array([r[k] for r in rows], pa.string()) for k in (0, 1))
    found = hash_rows(left, right)
    assert len(set(found.tolist())) == len(set(rows))
    assert hash_rows(left.slice(1), right.slice(1)).tolist() == found[1:].tolist()


def test_rows_are_those_of_their_file_with_the_line_in_csv(tmp_path, configured):
    (tmp_path / "log").mkdir()
    header = "event_id,user_id,item_id,time,type\n"
    lines = [",".join(map(str, row)) + "\n" for row in healthy()]
    (tmp_path / "log/a.csv").write_text(header + "".join(lines))
    (tmp_path / "log/b.csv").write_text(f'{header}"b\n1",u1,i1,{START},view\n\nb2,,i1,{START},view\n')
    (tmp_path / "items").mkdir()
    (tmp_path / "items/1.csv").write_text("item_id,cost\n" + "".join(f"i{k},1\n" for k in range(50)))
    (tmp_path / "items/2.csv").write_text("# prices\ncost,item_id\ncheap,i50\n")
    config = (
        'name = "s"\n[data]\nformat = "tables"\n[data.tables.events]\npath = "log"\n'
        '[data.tables.items]\npath = "items"\n[events.types]\nview = {}\n[features]\nitem_columns = ["cost"]\n'
    )
    f = examine(configured(config))
    first = problem(f, "null user_id").examples[0]
    assert (first["file"], first["row"], first["line"]) == ("b.csv", 2, 5)
    first = problem(f, "values of cost").examples[0]
    assert (first["file"], first["row"], first["line"], first["cost"]) == ("2.csv", 1, 3, "cheap")


def test_a_guessed_encoding_is_a_note_with_a_word(tmp_path, shop):
    (tmp_path / "items.csv").write_bytes("item_id,title\ni1,Café 3\ni2,Lamp\n".encode("latin-1"))
    found = problem(shop(healthy(), ITEMS), "guessed encoding")
    assert found.severity == "note"
    assert found.examples == [{"file": str(tmp_path / "items.csv"), "for example": "Café"}]
