"""Convert times of any notation that databases write to microseconds UTC."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.data.readers.location import ColumnLocation
from handsell.data.schemas import TIME

UNITS = {"s": 1_000_000, "ms": 1_000, "µs": 1, "ns": 0.001}  # microseconds per unit
LIMITS = {"s": 1e11, "ms": 1e14, "µs": 1e17, "ns": np.inf}  # used if few times are between 1990 and 2100
MODERN_US = (631_152_000_000_000, 4_102_444_800_000_000)  # 1990 to 2100: an unambiguous range in each unit
YEAR_9999_US, END_US = 253_370_764_800_000_000, 253_402_300_800_000_000
YEAR_1_US = -62_135_596_800_000_000
LONGEST_NS = 7.3e18  # year 2201; larger numbers, such as 2**63 - 1, decide no unit
ENOUGH = 0.1  # share of modern times that decides the unit
NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
COMPACT = (  # year alone, 20260501, 202605011200, 20260501120000 or 20260501120000123; no such number is a modern epoch
    r"^((1[5-9]|20)\d{2}|9999)"
    r"((0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d(\d{3})?)?)?)?(\.0*)?$"
)
SAMPLE = 1_000  # values that decide whether numbers are dates
ROUNDED = 8  # digits: epoch times with an exponent and fewer digits have been rounded
SINGLE = 2**24  # larger whole numbers are not exact as floats of 32 bits
NEVER_TEXT = r"(?i)^(\+?inf(inity)?|0000-00-00.*|\d{5,}-\d\d-\d\d.*|[+-]?0+(\.0*)?)$"
ISO = (
    r"^(?P<year>\d{4})-?(?P<month>\d{2})-?(?P<day>\d{2})"
    r"(?:(?:[Tt]|\s+)?(?P<hour>\d{2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6})\d*)?)?)?)?"
    r"\s*(?:[Zz]|UTC|GMT|utc|gmt|(?P<sign>[+-])(?P<zone_hour>\d{2})(?::?(?P<zone_minute>\d{2})(?::?00)?)?)?$"
)
EXPECTED = "ISO 8601 times such as 2026-05-01T12:00:00Z, or epoch seconds, ms, µs or ns"


def to_time(array: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert timestamps, dates, epoch numbers or ISO 8601 text to TIME; without a zone, UTC.

    Times of `expires_at` that mean "never" become null: year 9999 or later, infinity, 0, and times before 1970.
    """
    kind = array.type
    if pa.types.is_timestamp(kind):
        times = _cast_timestamps(array, location)
    elif pa.types.is_date(kind):
        times = _cast_timestamps(pc.cast(array, pa.timestamp("s")), location)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        times = _parse_numbers(array, location)
    elif pa.types.is_string(kind):
        times = _parse_text(array, location)
    else:
        raise location.error("a timestamp, a date, epoch seconds or ISO 8601 text", f"type {kind}")
    return _clear_never(times) if location.canonical == "expires_at" else times


def _clear_never(times: pa.Array) -> pa.Array:
    micros = np.asarray(pc.fill_null(times.cast(pa.int64()), 0))
    return pc.if_else(pa.array((micros > 0) & (micros < YEAR_9999_US)), times, pa.scalar(None, TIME))


def _cast_timestamps(array: pa.Array, location: ColumnLocation) -> pa.Array:
    if array.type.tz is None:
        array = pc.assume_timezone(array, "UTC")
    try:
        return pc.cast(array, TIME, safe=array.type.unit != "ns")  # ns: digits below µs are dropped
    except pa.ArrowInvalid:
        raw = np.asarray(pc.fill_null(array.cast(pa.int64()), 0)).astype(np.float64)
        micros = raw * (UNITS["s"] if array.type.unit == "s" else UNITS["ms"])
        return _build_times(micros, ~np.asarray(pc.is_valid(array)), raw, location)


def _parse_numbers(numbers: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert epoch numbers; a column of numbers such as 20260501 or 20260501120000 contains dates."""
    if pa.types.is_floating(numbers.type):
        single = numbers.type.bit_width < 64
        numbers = pc.if_else(pc.is_nan(numbers), None, pc.cast(numbers, pa.float64()))
        rounded = np.asarray(pc.fill_null(pc.greater(pc.abs(numbers), SINGLE), False))
        if single and rounded.any():
            row = int(np.argmax(rounded))
            raise location.error("integers, doubles or timestamps (floats of 32 bits are rounded)", numbers[row], row)
    if _are_dates(_format_numbers(_sample(numbers.filter(pc.fill_null(pc.not_equal(numbers, 0), False))))):
        return _parse_dates(_format_numbers(numbers), location)
    return _parse_epoch(numbers, location)


def _sample(values: pa.Array) -> pa.Array:
    return values.take(np.linspace(0, max(len(values) - 1, 0), min(len(values), SAMPLE)).astype(np.int64))


def _are_dates(sample: pa.Array) -> bool:
    """Whether most numbers are dates such as 20260501."""
    return 2 * (pc.sum(pc.match_substring_regex(sample, COMPACT)).as_py() or 0) > len(sample)


def _parse_dates(text: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert a column of dates such as 20260501; raise DataError with the row of the first other number."""
    if location.canonical == "expires_at":
        text = pc.if_else(pc.match_substring_regex(text, NEVER_TEXT), None, text)
    wrong = np.asarray(pc.fill_null(pc.invert(pc.match_substring_regex(text, COMPACT)), False))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise location.error("dates such as 20260501, as in most rows", repr(text[row].as_py()), row)
    return _parse_iso(text, location)


def _format_numbers(numbers: pa.Array) -> pa.Array:
    if pa.types.is_integer(numbers.type):
        return pc.cast(numbers, pa.string())
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 1e15))
    if not pc.all(pc.fill_null(whole, True)).as_py():
        return pa.nulls(len(numbers), pa.string())
    return pc.cast(pc.cast(numbers, pa.int64()), pa.string())


def _parse_epoch(numbers: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert epoch numbers of one unit; raise DataError where the column mixes units."""
    missing = ~np.asarray(pc.is_valid(numbers))
    values = np.asarray(pc.fill_null(numbers, 0))
    unit = _decide_unit(values, location)
    factor = UNITS[unit]
    with np.errstate(over="ignore"):  # infinity is out of range as well
        approximate = values.astype(np.float64) * factor
    times = _build_times(approximate, missing, values, location)
    if values.dtype.kind not in "iu":
        return times
    inside = (approximate > YEAR_1_US) & (approximate < YEAR_9999_US)
    whole = np.where(inside, values, 0).astype(np.int64)
    exact = whole * int(factor) if factor >= 1 else whole // 1_000
    return pc.if_else(pa.array(inside), pa.array(exact, TIME, mask=missing), times)


def _decide_unit(values: np.ndarray, location: ColumnLocation) -> str:
    """Return the unit in which most values are between 1990 and 2100; with few such values, decide by the median."""
    size = values.astype(np.float64)
    never = [(size >= YEAR_9999_US / factor) & (size < END_US / factor) for factor in UNITS.values()]
    modern = {unit: (size >= MODERN_US[0] / f) & (size < MODERN_US[1] / f) for unit, f in UNITS.items()}
    usual = (size != 0) & (np.abs(size) < LONGEST_NS) & ~np.logical_or.reduce(never)
    votes = {unit: int(found.sum()) for unit, found in modern.items()}
    unit = location.epoch_unit or max(votes, key=lambda name: votes[name])
    if location.epoch_unit or votes[unit] > ENOUGH * usual.sum():
        location.epoch_unit = unit
    else:
        median = float(np.median(np.abs(size[usual]))) if usual.any() else 0.0
        unit = next(name for name, limit in LIMITS.items() if median < limit)
    spans_1970 = (size < 0).any()  # small numbers are then times near 1970, not times of a larger unit
    for other, found in modern.items():
        if found.any() and other != unit and not (spans_1970 and UNITS[other] > UNITS[unit]):
            own = _show(values, modern[unit], unit, location) if votes[unit] else f"times in {unit}"
            raise location.error("epoch times of one unit", f"{own} and {_show(values, found, other, location)}")
    return unit


def _show(values: np.ndarray, found: np.ndarray, unit: str, location: ColumnLocation) -> str:
    row = int(np.argmax(found))
    return f"{values[row]} ({unit}) in {location.name_row(row)}"


def _build_times(micros: np.ndarray, missing: np.ndarray, values: np.ndarray, location: ColumnLocation) -> pa.Array:
    """Build times from float µs (N,); far times of expires_at become null, of other columns a DataError."""
    far = ~missing & ~((micros >= YEAR_1_US) & (micros < END_US))
    if far.any() and not (location.canonical == "expires_at" and (micros[far] > 0).all()):
        raise location.error("times between the years 1 and 9999", values[far][0], int(np.argmax(far)))
    gone = missing | far
    return pa.array(np.round(np.where(gone, 0, micros)).astype(np.int64), TIME, mask=gone)


def _parse_text(text: pa.Array, location: ColumnLocation) -> pa.Array:
    text = pc.utf8_trim_whitespace(text)
    text = pc.if_else(pc.equal(text, ""), None, text)
    if location.canonical == "expires_at":
        text = pc.if_else(pc.match_substring_regex(text, NEVER_TEXT), None, text)
    if _all_match(text, NUMBER):
        if _are_dates(_sample(text.drop_null())):
            return _parse_dates(text, location)
        _reject_rounded(text, location)
        whole = not pc.any(pc.match_substring_regex(text, "[.eE]")).as_py()
        try:
            return _parse_epoch(pc.cast(text, pa.int64() if whole else pa.float64()), location)
        except pa.ArrowInvalid:
            row = pc.index(pc.greater(pc.utf8_length(text), 18), True).as_py()
            raise location.error("epoch seconds, ms, µs or ns", repr(text[row].as_py()), row) from None
    _reject_mixed_notations(text, location)
    for kind in (TIME, pa.timestamp("us")):  # fast: all times have a zone, or none has
        try:
            times = pc.cast(pc.replace_substring(text, " UTC", "Z"), kind)
        except pa.ArrowInvalid:
            continue
        return times if kind == TIME else pc.assume_timezone(times, "UTC")
    return _parse_iso(text, location)


def _reject_rounded(text: pa.Array, location: ColumnLocation) -> None:
    """Raise DataError where all numbers with an exponent have few digits, as spreadsheets write them."""
    exponent = pc.fill_null(pc.match_substring_regex(text, "[eE]"), False)
    digits = pc.utf8_length(pc.replace_substring_regex(text.filter(exponent), r"[.+-]|[eE].*", ""))
    if len(digits) and pc.max(digits).as_py() < ROUNDED:
        row = pc.index(exponent, True).as_py()
        expected = "epoch times with all their digits (spreadsheets round long numbers: save the column as text)"
        raise location.error(expected, repr(text[row].as_py()), row)


def _reject_mixed_notations(text: pa.Array, location: ColumnLocation) -> None:
    """Raise DataError, with both, where some values are epoch numbers and others are not."""
    number = pc.match_substring_regex(text, NUMBER)
    epoch = np.asarray(pc.fill_null(pc.and_not(number, pc.match_substring_regex(text, COMPACT)), False))
    other = np.asarray(pc.fill_null(pc.invert(number), False))
    if epoch.any() and other.any():
        rows = (int(np.argmax(epoch)), int(np.argmax(other)))
        shown = " and ".join(f"{text[row].as_py()!r} in {location.name_row(row)}" for row in rows)
        raise location.error("times of one notation", shown)


def _parse_iso(text: pa.Array, location: ColumnLocation) -> pa.Array:
    plain = pc.replace_substring_regex(text, r"^(\d{4,17})\.0*$", r"\1")
    plain = pc.replace_substring_regex(
        pc.replace_substring_regex(plain, r"^(\d{4})$", r"\0-01-01"), r"^(\d{14})(\d{3})$", r"\1.\2"
    )
    parts = pc.extract_regex(plain, ISO)
    wrong = np.asarray(pc.and_(pc.is_valid(text), pc.is_null(parts)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise location.error(EXPECTED, repr(text[row].as_py()), row)
    part = {name: pc.struct_field(parts, name) for name in parts.type.names}
    clock = {
        name: _replace_empty(part[name], "00") for name in ("hour", "minute", "second", "zone_hour", "zone_minute")
    }
    date = pc.binary_join_element_wise(part["year"], part["month"], part["day"], "-")
    time = pc.binary_join_element_wise(clock["hour"], clock["minute"], clock["second"], ":")
    zone = pc.binary_join_element_wise(clock["zone_hour"], clock["zone_minute"], ":")
    written = pc.binary_join_element_wise(
        date, "T", time, ".", _replace_empty(part["fraction"], "0"), _replace_empty(part["sign"], "+"), zone, ""
    )
    try:
        return pc.cast(written, TIME)
    except pa.ArrowInvalid as error:
        bad = str(error).split("string: '")[-1].split("' as")[0].split("'")[0]
        row = pc.index(written, pa.scalar(bad)).as_py()
        got = repr(text[row].as_py() if row >= 0 else bad)
        raise location.error(EXPECTED, got, row if row >= 0 else None) from None


def _replace_empty(text: pa.Array, default: str) -> pa.Array:
    return pc.if_else(pc.equal(text, ""), default, text)


def _all_match(text: pa.Array, pattern: str) -> bool:
    """Whether there are values, and all match."""
    start = text.drop_null().slice(0, 1)  # most columns are decided by one value
    return all(len(part) and pc.all(pc.match_substring_regex(part, pattern)).as_py() for part in (start, text))
