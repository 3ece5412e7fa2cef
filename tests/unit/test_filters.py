"""Filter expressions: masks equal a plain evaluation in Python; errors name the column and the reason."""

import operator
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.config import Config
from handsell.core.errors import ConfigError, FilterError
from handsell.eligibility.config import LONGEST_FILTER, Surface
from handsell.eligibility.filters import Filters, get_filters
from handsell.eligibility.mask import Eligibility
from handsell.testing.small_catalog import draw_requests, draw_snapshot

OPS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
WORDS = ("", "Jazz", "jazz", "R'n'B", 'say "so"', "back\\slash", "Trad & Folk", "é", "true")
NUMBERS = (-3, 0, 1, 7, 2015)
FLOATS = (-0.0, 0.3, 1.5, 7.0, 1e30)
DAYS = ("1969-12-31", "2024-01-31", "2024-02-01")

# -- a plain reading: None is "not known" -------------------------------------------------------------------


def item_of(rows, i):
    return {name: column[i] for name, column in rows.items()}


def reading(tree, item):
    """True, False or None of one item."""
    kind, *parts = tree
    if kind == "not":
        part = reading(parts[0], item)
        return None if part is None else not part
    if kind in ("and", "or"):
        found = [reading(part, item) for part in parts]
        decides = kind == "or"
        return decides if decides in found else (None if None in found else not decides)
    name, value = parts[0], item[parts[0]]
    if kind == "null":
        return value is None
    if value is None:
        return None
    if kind == "has":
        return parts[1] in value
    narrow = (lambda v: float(np.float32(v))) if name == "energy" else (lambda v: v)
    if name == "added":
        narrow = day
    if kind == "in":
        return value in [narrow(v) for v in parts[1]]
    return OPS[parts[1]](value, narrow(parts[2]))


def day(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def quoted(value, quote="'"):
    if isinstance(value, str):
        return quote + value.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote
    return str(value).lower() if isinstance(value, bool) else repr(value)


MIRROR = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def written(tree, draw):
    """The tree as text, in one of the ways to write it."""
    kind, *parts = tree
    if kind == "not":
        return f"not {closed(parts[0], draw)}"
    if kind in ("and", "or"):
        return f" {kind} ".join(closed(part, draw) for part in parts)
    name = f"item.{parts[0]}"
    quote = draw(st.sampled_from("'\""))
    if kind == "null":
        return f"{name} is null"
    if kind == "has":
        return f"{quoted(parts[1], quote)} in {name}"
    if kind == "in":
        return f"{name} in [{', '.join(quoted(v, quote) for v in parts[1])}]"
    if parts == ["explicit", "==", True] and draw(st.booleans()):
        return name
    value = quoted(parts[2], quote)
    return f"{value}{MIRROR[parts[1]]}{name}" if draw(st.booleans()) else f"{name} {parts[1]} {value}"


def closed(tree, draw):
    text = written(tree, draw)
    return f"({text})" if tree[0] in ("and", "or") or draw(st.booleans()) else text


VALUES = {"year": NUMBERS, "energy": FLOATS, "label": WORDS, "added": DAYS}
COLUMNS = {
    "year": (st.sampled_from(NUMBERS), pa.int64()),
    "energy": (st.sampled_from([float(np.float32(f)) for f in FLOATS]), pa.float32()),
    "label": (st.sampled_from(WORDS), pa.string()),
    "explicit": (st.booleans(), pa.bool_()),
    "added": (st.sampled_from([day(d) for d in DAYS]), pa.timestamp("us", tz="UTC")),
    "tags": (st.lists(st.sampled_from(WORDS), max_size=3), pa.list_(pa.string())),
}


def single_tests():
    named = st.sampled_from(sorted(VALUES))
    compared = named.flatmap(
        lambda n: st.tuples(st.just("test"), st.just(n), st.sampled_from(sorted(OPS)), st.sampled_from(VALUES[n]))
    )
    flags = st.tuples(st.just("test"), st.just("explicit"), st.sampled_from(["==", "!="]), st.booleans())
    among = named.flatmap(
        lambda n: st.tuples(st.just("in"), st.just(n), st.lists(st.sampled_from(VALUES[n]), min_size=1, max_size=3))
    )
    has = st.tuples(st.just("has"), st.just("tags"), st.sampled_from(WORDS))
    nulls = st.tuples(st.just("null"), st.sampled_from(sorted(COLUMNS)))
    return st.one_of(compared, flags, among, has, nulls)


def joined(inner):
    return st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner),
        st.tuples(st.sampled_from(["and", "or"]), inner, inner, inner),
    )


@st.composite
def catalogs(draw):
    n = draw(st.integers(1, 6))
    column = {name: st.lists(st.none() | values, min_size=n, max_size=n) for name, (values, _) in COLUMNS.items()}
    return {name: draw(values) for name, values in column.items()}


@settings(max_examples=300, deadline=None)
@given(catalogs(), st.recursive(single_tests(), joined, max_leaves=6), st.data(), st.booleans())
def test_masks_equal_a_plain_evaluation_in_python(rows, tree, data, in_chunks):
    table = pa.table({name: pa.array(rows[name], kind) for name, (_, kind) in COLUMNS.items()})
    if in_chunks:
        table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    expression = written(tree, data.draw)
    expected = [reading(tree, item_of(rows, i)) is True for i in range(len(table))]
    assert Filters(table).mask(expression).tolist() == expected, expression


# -- the language -------------------------------------------------------------------------------------------


@pytest.fixture
def shelf():
    return Filters(
        pa.table(
            {
                "title": ["Blue", "Kind", None, "So"],
                "tags": [["Jazz", "Vocal"], ["Rock"], ["Jazz"], None],
                "year": pa.array([2014, 2015, 2020, None], pa.int16()),
                "energy": pa.array([0.1, 0.3, float("nan"), 0.9], pa.float32()),
                "explicit": [False, True, None, False],
                "kind": pa.array(["a", "b", None, "a"]).dictionary_encode(),
                "price": pa.array([1, 2, None, 3]).cast(pa.decimal128(21, 2)),
                "released": pa.array([0, 19_000, None, 20_000], pa.date32()),
                "cover": pa.array([b"1", b"2", b"3", b"4"]),
            }
        )
    )


@pytest.mark.parametrize(
    ("expression", "items"),
    {
        "item.year >= 2015 and 'Jazz' in item.tags and not item.explicit": [],
        "item.year >= 2015 and 'Jazz' in item.tags": [2],
        "'Jazz' in item.tags or 'Rock' in item.tags and item.year > 2015": [0, 2],
        "('Jazz' in item.tags or 'Rock' in item.tags) and item.year > 2014": [1, 2],
        "not item.explicit": [0, 3],
        "not not item.explicit": [1],
        "not item.explicit or item.explicit is null": [0, 2, 3],
        "item.year != 2014": [1, 2],
        "not item.year == 2014": [1, 2],
        "item.year not in [2014, 99999]": [1, 2],
        "'Jazz' not in item.tags": [1],
        "item.energy == 0.3": [1],
        "item.energy != 0.3": [0, 3],
        "item.energy is not null": [0, 1, 3],
        "item.energy < 1e300": [0, 1, 3],
        "item.year < 9223372036854775807": [0, 1, 2],
        "item.year > 2014.5": [1, 2],
        "item.kind == 'a'": [0, 3],
        "item.price >= 2.0": [1, 3],
        "item.released >= '2022-01-08'": [1, 3],
        "item.released < '2022-01-08T00:00:00+01:00'": [0],
        "item.title in ['Blue', \"So\"]\n  and item.explicit == False": [0, 3],
        "item.title >= 'C'": [1, 3],
    }.items(),
)  # fmt: skip
def test_the_language(shelf, expression, items):
    assert np.flatnonzero(shelf.mask(expression)).tolist() == items


@pytest.mark.parametrize(
    ("expression", "column", "words"),
    [
        ("", 1, "got the end"),
        ("item.year >", 12, "a number"),
        ("item.year = 2015", 11, "for equality write =="),
        ("item.year >= 2015 AND item.explicit", 19, "write and"),
        ("item.year >= 2015 item.explicit", 19, "expected 'and', 'or' or the end"),
        ("(item.explicit", 15, "expected ')'"),
        ("item.title == 'abc", 15, "a text that ends with '"),
        ("item.title == 'a\\n'", 15, "no backslashes except in \\' and"),
        ("item.year in []", 15, "a number"),
        ("item.year < 2015 < 2020", 18, "expected 'and', 'or' or the end"),
        ("item.year == 1e999", 14, "64 bits"),
        ("item.year == " + "9" * 900, 14, "64 bits"),
        ("item.explicit and item.yeer >= 2015", 19, "did you mean item.year? there are: item.title (text)"),
        ("year >= 2015", 1, "no year; did you mean item.year?"),
        ("user.country == 'de'", 1, "there is no user.country: user attributes need features.user_attributes"),
        ("item.cover == 'x'", 1, "holds binary"),
        ("item.tags > 3", 1, "item.tags is a list of texts: expected 'a' in item.tags; got > 3"),
        ("item.tags == 'Jazz'", 1, "expected 'a' in item.tags"),
        ("item.tags in ['Jazz']", 1, "expected 'a' in item.tags"),
        ("3 in item.tags", 1, "a text in quotes"),
        ("item.title in item.tags", 1, "a text in quotes"),
        ("'B' in item.title", 8, "item.title is a text: expected item.title == 'a'"),
        ("item.year >= '2015'", 1, "item.year is a number: expected item.year >= 2015"),
        ("item.year == true", 1, "got == true"),
        ("item.year in [2015, 'x']", 1, "got in 'x'"),
        ("item.year == [2015]", 1, "got == a list"),
        ("item.year in 2015", 1, "got in 2015"),
        ("item.year", 1, "got item.year alone"),
        ("item.explicit > false", 1, "item.explicit is a true or false"),
        ("item.released >= 'today'", 18, "a date such as"),
        ("item.released >= '2024-01-31T12:00:00'", 18, "a date such as"),
        ("item.released >= 2024", 1, "item.released is a time"),
        ("item.year == item.year", 14, "not another name; got item.year"),
        ("item.year == null", 14, "write item.year is null"),
        ("2 < 3", 1, "a test of item.<attribute>; got 2"),
        ("true", 1, "a test of item.<attribute>"),
        ("__import__('os')", 11, "there are no functions"),
        ("item.__class__", 1, "no item.__class__"),
        ("().__class__", 2, "expected"),
        ("item.year >= 2015; import os", 18, "got ';'"),
        ("[x for x in item.tags]", 2, "got 'x'"),
        ("lambda: 0", 7, "got ':'"),
    ],
)  # fmt: skip
def test_errors_name_the_column_and_what_is_expected(shelf, expression, column, words):
    with pytest.raises(FilterError) as error:
        shelf.check(expression)
    assert error.value.at == column and words in str(error.value), str(error.value)
    assert str(error.value).startswith(f"column {column}: ") and len(str(error.value)) < 700


def test_length_depth_and_lists_are_bounded(shelf):
    shelf.check("(" * 32 + "item.explicit" + ")" * 32)
    shelf.check(f"item.year in [{', '.join(map(str, range(100)))}]")
    for expression, words in (
        ("(" * 33 + "item.explicit" + ")" * 33, "at most 32 nested parentheses"),
        ("not " * 200 + "item.explicit", "at most 32 nested parentheses"),
        (f"item.year in [{', '.join(map(str, range(101)))}]", "at most 100 values in a list"),
        ("item.explicit" + " " * LONGEST_FILTER, "at most 1000 characters"),
    ):
        with pytest.raises(FilterError, match=words):
            shelf.check(expression)


def test_the_mask_cache_is_bounded_and_masks_are_read_only(shelf):
    first = shelf.mask("item.year > 0")
    assert shelf.mask("item.year > 0") is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = True
    for year in range(3_000):
        shelf.mask(f"item.year > {year}")
    assert shelf.mask.cache_info().currsize <= 1_024 and shelf.mask("item.year > 0") is not first


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("item.yeartags \"'\\()[]<>=!,0123_-é\n andornotisnull"), max_size=60))
def test_any_text_is_parsed_or_refused(expression):
    table = pa.table({"year": [1, None], "tags": [["a"], None]})
    try:
        Filters(table).mask(expression)
    except FilterError as error:
        assert "expected" in str(error) or "there are:" in str(error)


# -- attributes of the user ----------------------------------------------------------------------------------

KINDS = {"age": "number", "country": "text", "adult": "true or false", "likes": "list of texts"}
EVERYTHING, NOTHING = [0, 1, 2, 3], []


def who(**values):
    """A user as masks are asked for; what is not given is not known."""
    return tuple((name, kind, values.get(name)) for name, kind in KINDS.items())


@pytest.mark.parametrize(
    ("expression", "user", "same_as"),
    [
        ("item.year >= user.age", who(age=2015.0), "item.year >= 2015"),
        ("user.age <= item.year", who(age=2015), "item.year >= 2015"),
        ("item.kind == user.country", who(country="a"), "item.kind == 'a'"),
        ("item.kind in user.likes", who(likes=("a", "b")), "item.kind in ['a', 'b']"),
        ("item.kind not in user.likes", who(likes=()), "item.kind is not null"),
        ("user.country in item.tags", who(country="Jazz"), "'Jazz' in item.tags"),
        ("item.explicit == user.adult", who(adult=True), "item.explicit"),
        ("not item.explicit or user.adult", who(adult=False), "not item.explicit"),
        ("not item.explicit or user.adult", who(adult=True), EVERYTHING),
        ("user.age >= 18", who(age=18.0), EVERYTHING),
        ("user.age >= 18", who(age=17.0), NOTHING),
        ("user.country in ['de', 'at'] and 'a' in user.likes", who(country="at", likes=("a",)), EVERYTHING),
        ("user.country is null", who(), EVERYTHING),
        ("user.country is not null", who(), NOTHING),
        ("item.year >= user.age", who(), NOTHING),
        ("not item.year >= user.age", who(), NOTHING),
        ("item.year >= user.age or user.age is null", who(), EVERYTHING),
        ("item.kind in user.likes", who(), NOTHING),
        ("not user.adult", who(), NOTHING),
    ],
)
def test_user_attributes_compare_with_items_and_with_literals(shelf, expression, user, same_as):
    shelf.check(expression, KINDS)
    expected = np.flatnonzero(shelf.mask(same_as)).tolist() if isinstance(same_as, str) else same_as
    assert np.flatnonzero(shelf.mask(expression, user)).tolist() == expected


@pytest.mark.parametrize(
    ("expression", "column", "words"),
    [
        ("item.year >= user.country", 1, "item.year is a number: expected .*; got >= user.country \\(text\\)"),
        ("item.year in user.age", 1, "got in user.age \\(number\\)"),
        ("user.countri == 'de'", 1, "no user.countri; did you mean user.country.*user.age \\(number\\)"),
        ("item.year > 3 and item.kind == user.town", 32, "there is no user.town"),
        ("user.age", 1, "user.age is a number"),
        ("user.age == user.age", 13, "not another name"),
        ("item.released >= user.country", 1, "item.released is a time"),
    ],
)
def test_a_misused_user_attribute_is_named(shelf, expression, column, words):
    with pytest.raises(FilterError, match=words) as error:
        shelf.check(expression, KINDS)
    assert error.value.at == column


# -- in the eligibility mask -------------------------------------------------------------------------------


@pytest.fixture
def even(rng):
    """A catalog whose items know whether their number is even, and which third they are of."""
    made = draw_snapshot(rng, 40)
    n = np.arange(40)
    columns = {"item_id": [f"i{i}" for i in n], "even": n % 2 == 0, "third": n % 3}
    return replace(made, metadata=pa.table(columns))


def test_each_request_of_a_batch_has_its_own_filter_and_that_of_its_surface(rng, even):
    eligibility = Eligibility(even, (Surface(repeat="allow"), Surface(repeat="allow", filter="item.even")))
    asked = replace(draw_requests(rng, even, rows=4), surface=np.array([0, 0, 1, 1], np.int8))
    free = Eligibility(even, (Surface(repeat="allow"),) * 2).mask(asked)
    asked = asked.with_filters([None, "item.third == 1", "item.third == 1", None])
    n = np.arange(40)
    passes = np.stack([n >= 0, n % 3 == 1, (n % 3 == 1) & (n % 2 == 0), n % 2 == 0])
    assert asked.filters == ("item.third == 1",)
    assert (eligibility.mask(asked) == (free & passes)).all()
    items = np.tile(np.arange(-1, 40, dtype=np.int32), (4, 1))
    assert (eligibility.allows(asked, items)[:, 1:] == (free & passes)).all()
    assert not eligibility.allows(asked, items)[:, 0].any()
    assert (eligibility.mask(asked.take(np.array([2, 0]))) == (free & passes)[[2, 0]]).all()
    assert (eligibility.find_reachable(asked.take(slice(2, 4))) == (free[2:].any(axis=0) & (n % 2 == 0))).all()


def test_each_user_of_a_batch_is_filtered_by_their_own_attributes(rng, even):
    text = "item.third == user.third or user.all"
    surfaces = (Surface(repeat="allow"), Surface(repeat="allow", filter=text))
    eligibility = Eligibility(even, surfaces, (("all", "true or false"), ("third", "number")))
    asked = replace(draw_requests(rng, even, rows=5), surface=np.array([0, 1, 1, 1, 1], np.int8))
    free = eligibility.mask(replace(asked, surface=np.zeros(5, np.int8)))
    cells = np.array([[None, 1.0], [None, 2.0], [True, None], [None, None], [False, 2.0]], object)
    n = np.arange(40)
    passes = np.stack([n >= 0, n % 3 == 2, n >= 0, n < 0, n % 3 == 2])
    known = replace(asked, attributes=cells)
    assert (eligibility.mask(known) == (free & passes)).all()
    assert (eligibility.mask(known.take(np.array([4, 2]))) == (free & passes)[[4, 2]]).all()
    assert eligibility.has_filter(known).tolist() == [False, True, True, True, True]
    assert not eligibility.mask(asked)[1:].any(), "nothing is known of anybody: nothing passes"
    assert (eligibility.find_reachable(known.take(np.array([1, 3]))) == (free.any(axis=0) & (n % 3 == 2))).all()


def test_all_stages_of_a_process_share_the_masks_of_a_snapshot(even):
    assert get_filters(even) is get_filters(even) and get_filters(replace(even)) is not get_filters(even)


def test_a_surface_filter_that_does_not_fit_the_catalog_is_refused_at_load(even):
    config = Config(name="test", surfaces={"home": Surface(), "kids": Surface(filter="not item.explicit")})
    with pytest.raises(ConfigError, match=r"surfaces\.kids\.filter: column 5: there is no item\.explicit.*item\.even"):
        Eligibility.of(even, config)
