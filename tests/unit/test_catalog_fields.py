"""Fields of items and users from JSON: the same values and messages as in tables."""

from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handsell.core.errors import DataError
from handsell.data.catalog_fields import FieldRules, convert_value
from handsell.data.readers.conversion import convert
from handsell.data.readers.lists import choose_separator
from handsell.data.readers.location import ColumnLocation
from handsell.data.schemas import STRINGS, TIME

DAY = 1_777_593_600_000_000  # 2026-05-01, µs
RULES = FieldRules.of_items(
    {"price": (pa.float64(), "features.item_columns"), "explicit": (pa.bool_(), "the items table")}
)


def store(**given):
    fields, problems = RULES.convert(given)
    assert problems == []
    return fields


def refuse(**given):
    fields, problems = RULES.convert(given)
    assert len(problems) == 1 and problems[0].field in given and problems[0].field not in fields
    return problems[0].detail


@pytest.mark.parametrize(
    "written",
    ["2026-05-01", "2026-05-01T00:00:00Z", "2026-05-01 02:00:00+02:00", "20260501", 20260501, 1_777_593_600,
     1_777_593_600_000, 1_777_593_600_000_000, "1777593600", 1_777_593_600.0],
)  # fmt: skip
def test_times_in_every_notation_of_tables(written):
    assert store(published_at=written) == {"published_at": DAY}
    assert store(expires_at=written) == {"expires_at": DAY}


@pytest.mark.parametrize(
    "never", [None, "", "NULL", "9999-12-31", "infinity", 0, "0", "0000-00-00 00:00:00", 2**63 - 1]
)
def test_an_expiry_that_means_never(never):
    assert store(expires_at=never) == {"expires_at": None}


def test_a_time_that_no_table_accepts_is_named():
    assert refuse(published_at="tomorrow").startswith("published_at: expected ISO 8601 times such as")
    assert "got 'tomorrow'" in refuse(published_at="tomorrow")
    assert refuse(published_at=True).startswith("published_at: expected a timestamp, a date, epoch seconds")
    assert refuse(expires_at={"year": 2026}).startswith("expires_at: expected")
    assert refuse(published_at=10**30).startswith("published_at: expected")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        (["rock", "pop"], ["rock", "pop"]), ("rock|pop", ["rock", "pop"]), ("rock, pop", ["rock", "pop"]),
        ('["rock", "pop"]', ["rock", "pop"]), ("{rock,pop}", ["rock", "pop"]), (["rock", None, ""], ["rock"]),
        ([1999, "x"], ["1999", "x"]), ("rock", ["rock"]), ([], []), (None, None), ("", None), (7, ["7"]),
    ],
)  # fmt: skip
def test_lists_and_text_with_separators(written, stored):
    assert store(tags=written) == {"tags": stored}


def test_the_separator_of_the_config():
    rules = FieldRules.of_items({}, "/")
    assert rules.convert({"creators": "AC|DC/ABBA"})[0] == {"creators": ["AC|DC", "ABBA"]}


@given(
    st.one_of(
        st.integers(0, 10**17), st.datetimes(datetime(1980, 1, 1), datetime(2150, 1, 1)), st.text("ab|;, ", max_size=9)
    )
)
def test_the_fast_ways_give_what_columns_of_tables_give(value):
    written = value.isoformat(timespec="milliseconds") + "+02:00" if isinstance(value, datetime) else value
    location = ColumnLocation("f", "c", "published_at")
    if isinstance(value, str):
        separator = choose_separator([pa.array([value])], "tags")
        table = convert(pa.array([value]), STRINGS, location, separator)[0].as_py() if value.strip() else None
        assert store(tags=value)["tags"] == table
        return
    try:
        expected = convert(pa.array([written]), TIME, location, "|").cast(pa.int64())[0].as_py()
    except DataError:
        expected = None
    fields, _ = RULES.convert({"published_at": written})
    assert fields.get("published_at") == expected


def test_lists_that_no_table_accepts():
    assert refuse(tags=[["a"]]) == "tags: expected lists of text, got a list of lists"
    assert refuse(tags=[True]).startswith("tags: expected text or whole numbers")
    assert refuse(creators=[1.5]).startswith("creators: expected text or whole numbers")
    assert refuse(tags='["a"').startswith("tags: expected a list with a closing bracket")


def test_flags_and_text():
    assert [store(available=v)["available"] for v in (True, False, "yes", "0", 1, None, "")] == [
        True, False, True, False, True, None, None,
    ]  # fmt: skip
    assert refuse(available="maybe") == "available: expected true or false, got 'maybe'"
    assert store(title="NULL", text=1984) == {"title": None, "text": "1984"}
    assert refuse(title={"en": "x"}).startswith("title: expected text or whole numbers")


def test_columns_with_a_type_and_free_metadata():
    assert store(price="12.50", explicit="no") == {"price": 12.5, "explicit": False}
    assert store(price=3) == {"price": 3}
    assert refuse(price="cheap") == "price: expected a number, got 'cheap', because of features.item_columns"
    assert refuse(price=[1]).startswith("price: expected a number")
    assert refuse(price="inf").startswith("price: expected a finite number")
    free = {"sizes": [1, 2], "shop": {"city": "Köln", "open": [{"day": 1}]}, "weight": 1.5, "new": True, "note": None}
    assert store(**free) == free


def test_a_name_that_is_nearly_a_canonical_one_is_refused():
    assert refuse(Title="x").endswith("got Title (perhaps title?)")
    assert "perhaps tags?" in refuse(tag="x")
    assert refuse(**{"": 1}).startswith(": expected a name")
    assert refuse(**{"a\nb": 1})
    known = FieldRules.of_items({"tag": (pa.string(), "the items table")})
    assert known.convert({"tag": "x"}) == ({"tag": "x"}, [])


def test_a_whole_row_has_all_canonical_columns():
    assert RULES.complete({"title": "x"}) == {
        "title": "x", "creators": None, "tags": None, "text": None, "published_at": None, "expires_at": None,
        "available": None,
    }  # fmt: skip


def test_columns_of_all_types_of_tables():
    assert convert_value("d", "2026-05-01", pa.date32()) == "2026-05-01"
    assert convert_value("s", {"a": 1}, pa.struct([("a", pa.int64())])) == {"a": 1}
    assert convert_value("n", [1, 2], pa.list_(pa.int64())) == [1, 2]
    assert convert_value("t", 5, pa.string()) == "5"
    for value, kind in (("x", pa.date32()), ("x", pa.list_(pa.int64())), ({"a": "x"}, pa.struct([("a", pa.int64())]))):
        with pytest.raises(Exception, match="expected"):
            convert_value("c", value, kind)


def test_users():
    rules = FieldRules.of_users({"age": (pa.float64(), "features.user_columns")})
    assert rules.convert({"user_id": "u", "age": "41", "plan": "pro"}) == ({"age": 41, "plan": "pro"}, [])
    assert "features.user_columns" in rules.convert({"age": "old"})[1][0].detail
