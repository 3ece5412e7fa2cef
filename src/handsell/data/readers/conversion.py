"""Convert columns of user tables to canonical types; errors name file and column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.errors import DataError
from handsell.data.schemas import STRINGS, TIME

ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
DATE = r"^\d{4}-\d{2}-\d{2}$"
DIGITS = r"^-?\d+(\.\d+)?$"
UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0))  # |epoch| below: seconds, milliseconds, microseconds; else ns
YES, NO = ("true", "1", "yes", "t", "y"), ("false", "0", "no", "f", "n")


@dataclass(frozen=True, slots=True)
class ColumnLocation:
    """File and column, for error messages."""

    path: str
    column: str  # name in the file
    canonical: str

    def error(self, expected: str, got: object) -> DataError:
        return DataError(
            f"{self.path}: column {self.column} ({self.canonical}): expected {expected}, got {got}; correct the "
            f"values, or map {self.canonical} to another column in the TOML"
        )


def convert(array: pa.Array, kind: pa.DataType, location: ColumnLocation, separator: str) -> pa.Array:
    """Convert to a type of the canonical schemas; empty text becomes null."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if kind == pa.string():
        return to_text(array, location)
    if kind == TIME:
        return to_time(array, location)
    if kind == STRINGS:
        return to_lists(array, location, separator)
    if kind == pa.bool_():
        return to_flag(array, location)
    return to_number(array, kind, location)


def to_text(array: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert text and whole numbers to text. Whole floats, as pandas makes of ids with nulls, lose their `.0`."""
    kind = array.type
    if _is_text(kind):
        text = pc.cast(array, pa.string())
        return pc.if_else(pc.equal(text, ""), None, text)
    if pa.types.is_integer(kind):
        return pc.cast(array, pa.string())
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), None, array)
        whole = pc.equal(array, pc.floor(array))
        if pc.all(whole).as_py() is not False:
            try:
                return pc.cast(pc.cast(array, pa.int64()), pa.string())
            except pa.ArrowInvalid as error:
                raise location.error("text or whole numbers", first_line(error)) from None
        raise location.error("text or whole numbers", array.filter(pc.invert(whole))[0].as_py())
    raise location.error("text or whole numbers", f"type {kind}")


def to_time(array: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert timestamps, dates, epoch seconds, ms, µs or ns, or ISO 8601 text to µs UTC; without a zone, UTC."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        if kind.tz is None:
            array = pc.assume_timezone(array, "UTC")
        return pc.cast(array, TIME, safe=False)
    if pa.types.is_date(kind):
        return pc.assume_timezone(pc.cast(array, pa.timestamp("us")), "UTC")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _parse_epoch(array)
    if _is_text(kind):
        return _parse_time(pc.cast(array, pa.string()), location)
    raise location.error("a timestamp, a date, epoch seconds or ISO 8601 text", f"type {kind}")


def to_number(array: pa.Array, kind: pa.DataType, location: ColumnLocation) -> pa.Array:
    if _is_text(array.type):
        array = pc.if_else(pc.equal(array, ""), None, array)
    try:
        return pc.cast(array, kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise location.error(f"a number ({kind})", f"type {array.type}: {first_line(error)}") from None


def to_lists(array: pa.Array, location: ColumnLocation, separator: str) -> pa.Array:
    """Convert lists of text, or text split at the separator; empty entries are dropped."""
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        try:
            return pc.cast(array, STRINGS)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise location.error("lists of text", f"type {kind}") from None
    text = to_text(array, location)
    rows = pc.split_pattern(pc.fill_null(text, ""), separator).to_pylist()
    return pa.array([[word for part in row if (word := part.strip())] for row in rows], STRINGS)


def to_flag(array: pa.Array, location: ColumnLocation) -> pa.Array:
    if pa.types.is_boolean(array.type):
        return array
    text = pc.utf8_lower(to_text(array, location))
    yes, no = pc.is_in(text, pa.array(YES)), pc.is_in(text, pa.array(NO))
    invalid = pc.and_(pc.is_valid(text), pc.invert(pc.or_(yes, no)))
    if pc.any(invalid).as_py():
        raise location.error("true or false", repr(text.filter(invalid)[0].as_py()))
    return pc.if_else(pc.is_valid(text), yes, None)


def _parse_epoch(numbers: pa.Array) -> pa.Array:
    """Infer the unit from the size: the present is 1.8e9 in seconds, 1.8e12 in ms, 1.8e15 in µs, 1.8e18 in ns."""
    known = np.asarray(pc.is_valid(numbers))
    values = np.asarray(pc.fill_null(numbers, 0))
    known &= np.isfinite(values)
    size = np.abs(np.where(known, values, 0)).max(initial=0)
    factor = next((f for limit, f in UNITS if size < limit), 1e-3)
    whole = values.dtype.kind in "iu"
    micros = values * int(factor) if whole and factor >= 1 else np.where(known, values, 0) * factor
    return pa.array(np.where(known, micros, 0).astype(np.int64), TIME, mask=~known)


def _parse_time(text: pa.Array, location: ColumnLocation) -> pa.Array:
    text = pc.utf8_trim_whitespace(text)
    text = pc.if_else(pc.equal(text, ""), None, text)
    if pc.all(pc.match_substring_regex(text, DIGITS)).as_py() and len(text) > text.null_count:
        kind = pa.float64() if pc.any(pc.match_substring(text, ".")).as_py() else pa.int64()
        try:
            return _parse_epoch(pc.cast(text, kind))
        except pa.ArrowInvalid as error:
            raise location.error("epoch seconds, ms, µs or ns", first_line(error)) from None
    text = pc.if_else(pc.match_substring_regex(text, DATE), pc.binary_join_element_wise(text, "T00:00:00", ""), text)
    zoned = pc.match_substring_regex(text, ZONE)
    text = pc.if_else(zoned, text, pc.binary_join_element_wise(text, "Z", ""))
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")  # digits below µs are dropped
    try:
        return pc.cast(text, TIME)
    except pa.ArrowInvalid as error:
        got = str(error).split("string: '")[-1].split("' as")[0].removesuffix("Z")
        raise location.error("ISO 8601 times such as 2026-05-01T12:00:00Z, or epoch seconds", repr(got)) from None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
