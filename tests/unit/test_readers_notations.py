"""Notations of dates as numbers, lists and flags: read exactly, or refused with the row of the value."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from handsell.core.errors import DataError
from handsell.data.config import TablesConfig
from handsell.data.readers.conversion import convert
from handsell.data.readers.location import ColumnLocation
from handsell.data.readers.tables import Tables
from handsell.data.schemas import STRINGS, TIME


def read(array, kind=TIME, canonical="time"):
    return convert(array, kind, ColumnLocation("file", "col", canonical), "|").to_pylist()


@pytest.mark.parametrize(
    ("number", "time"),
    [
        (2019, (2019, 1, 1)),
        (19991231, (1999, 12, 31)),
        (18531231, (1853, 12, 31)),
        (202605282006, (2026, 5, 28, 20, 6)),
        (20260528200641, (2026, 5, 28, 20, 6, 41)),
        (20260528200641123, (2026, 5, 28, 20, 6, 41, 123_000)),
    ],
)
def test_numbers_that_are_dates_in_each_type(number, time):
    expected = [datetime(*time, tzinfo=UTC), None] * 2
    for values in ([number, None], [str(number), None]):
        assert read(pa.array(values * 2)) == expected
    if number < 1e15:
        assert read(pa.array([float(number), None] * 2)) == expected
        assert read(pa.array([f"{number}.0", None] * 2)) == expected


@pytest.mark.parametrize("never", [99991231, 0])
def test_never_beside_dates_as_numbers_leaves_the_others_as_they_are(never):
    for column in (pa.array([20311218] * 57 + [never] * 3), pa.array(["20311218"] * 57 + [str(never)] * 3)):
        assert read(column, canonical="expires_at") == [datetime(2031, 12, 18, tzinfo=UTC)] * 57 + [None] * 3
    far = pa.array(["20311218000000"] * 57 + ["99991231235959"] * 3)
    assert read(far, canonical="expires_at") == [datetime(2031, 12, 18, tzinfo=UTC)] * 57 + [None] * 3


@pytest.mark.parametrize("wrong", [20261301, 1777636800, 7])
def test_one_number_that_is_no_date_does_not_make_the_others_seconds(wrong):
    for column in (pa.array([20260501, 20260502, wrong]), pa.array(["20260501", "20260502", str(wrong)])):
        with pytest.raises(DataError, match=rf"expected dates such as 20260501.*got '{wrong}' in row 3"):
            read(column)


@pytest.mark.parametrize(
    ("column", "kind", "said"),
    [
        (pa.array([None, 1_777_636_864.0], pa.float32()), TIME, "floats of 32 bits are rounded.* in row 2"),
        (pa.array(["1.78E+12", "1.77999E+12"]), TIME, r"with all their digits .*got '1\.78E\+12' in row 1"),
        (pa.array(["1777636800", "9" * 23]), TIME, f"epoch seconds.*got '{'9' * 23}' in row 2"),
        (pa.array(["yes", None, "maybe"]), pa.bool_(), "expected true or false, got 'maybe' in row 3"),
        (pa.array([["1"], None, ["2", "3"], [None]]), STRINGS, None),
        (pa.array([[1.0, 3.0], None, [2.0, 2.5]]), STRINGS, r"got 2\.5 in row 3"),
        (pa.array(["['a', 'b']", '["a", "b']), STRINGS, "expected a list with a closing bracket.* in row 2"),
        (pa.array(["1", "1.5"]), pa.int16(), r"expected a number.*got '1\.5' in row 2"),
        (pa.array(["1", "70000"]), pa.int16(), "expected a number.*got 70000 in row 2"),
        (pa.array([1.0, None, 1.5]), pa.int16(), r"expected a number.*got 1\.5 in row 3"),
        (pa.array([1, 2, 70_000]), pa.int16(), "expected a number.*got 70000 in row 3"),
    ],
)
def test_what_is_wrong_is_shown_with_its_row(column, kind, said):
    if said is None:
        assert read(column, kind) == [["1"], None, ["2", "3"], []]
        return
    with pytest.raises(DataError, match=said):
        read(column, kind)


def test_exact_epoch_times_with_an_exponent_and_flags_as_floats():
    assert read(pa.array(["1.7776368E+09", "1.777636801E9"])) == [
        datetime(2026, 5, 1, 12, 0, second, tzinfo=UTC) for second in (0, 1)
    ]
    assert read(pa.array(["1.0", "0.0", " 1 ", "TRUE"]), pa.bool_()) == [True, False, True, True]


def test_many_epoch_times_stay_epoch_times():
    seconds = np.arange(1_777_636_800, 1_777_636_800 + 5_000)
    assert read(pa.array(seconds)) == [datetime.fromtimestamp(int(s), UTC) for s in seconds]


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["48.137", "48.1"], [48.137, 48.1]),
        (["48.137", "11.575"], [48.137, 11.575]),
        (["0.250", "1.250"], [0.25, 1.25]),
        (["1.103,99", "1.103"], [1103.99, 1103]),
        (["1,5", "2"], [1.5, 2]),
        (["1,5", "1.5"], ["1,5", "1.5"]),
    ],
)
def test_points_of_files_with_semicolons_or_tabs_are_decimal_unless_commas_are(tmp_path, delimiter, texts, numbers):
    lines = [f"i{k}{delimiter}{text}" for k, text in enumerate(texts)]
    (tmp_path / "items.csv").write_text("\n".join([f"item_id{delimiter}size", *lines]) + "\n")
    tables = TablesConfig.model_validate({"events": {"path": "events.csv"}, "items": {"path": "items.csv"}})
    assert Tables(tmp_path, tables, ("view",)).items()["size"].to_pylist() == numbers
