"""Convert columns of user tables to canonical types; errors name file and column."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.data.readers.lists import split_text
from handsell.data.readers.location import ColumnLocation, first_line
from handsell.data.readers.numbers import cast_whole, parse_numbers
from handsell.data.readers.times import to_time
from handsell.data.schemas import STRINGS, TIME

MISSING = ("", "NULL", "null", "NaN", "nan", "None", "NaT", "<NA>", "\\N")  # text that means "no value"
EXACT = {16: 2**11, 32: 2**24, 64: 2**53}  # by bits of a float: larger whole numbers are not exact
YES, NO = ("true", "1", "yes", "t", "y"), ("false", "0", "no", "f", "n")


def convert(array: pa.Array, kind: pa.DataType, location: ColumnLocation, separator: str) -> pa.Array:
    """Convert the next rows of a column to a type of the canonical schemas; text in MISSING becomes null."""
    text = _require_utf8(_decode(array), location)
    converted = _convert(_simplify_decimals(clear_missing(text)), kind, location, separator)
    location.rows += len(array)
    return converted


def _convert(array: pa.Array, kind: pa.DataType, location: ColumnLocation, separator: str) -> pa.Array:
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


def _decode(array: pa.Array) -> pa.Array:
    """Take bytes, as some warehouses write text, for text."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return pc.cast(pc.cast(array, pa.binary()), pa.string(), safe=False) if _is_binary(array.type) else array


def clear_missing(array: pa.Array) -> pa.Array:
    """Replace text in MISSING by null, in tables of all formats; other types are unchanged."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not _is_text(array.type):
        return array
    text = _replace_invalid(array)
    return pc.if_else(pc.is_in(pc.utf8_trim_whitespace(text), pa.array(MISSING)), None, text)


def _is_utf8(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _require_utf8(array: pa.Array, location: ColumnLocation) -> pa.Array:
    """Return the array without a dictionary; raise DataError if it holds text that is not UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if _is_utf8(array):
        return array
    row = next(row for row in range(len(array)) if not _is_utf8(pa.concat_arrays([array.slice(row, 1)])))
    raise location.error("text in UTF-8", "bytes of another encoding", row)


def _replace_invalid(text: pa.Array) -> pa.Array:
    """Cast text to strings; bytes that are not UTF-8 become U+FFFD."""
    if _is_utf8(text):
        return pc.cast(text, pa.string())
    cells = pc.cast(text, pa.large_binary()).to_pylist()
    return pa.array([None if cell is None else cell.decode(errors="replace") for cell in cells], pa.string())


def _simplify_decimals(array: pa.Array) -> pa.Array:
    """Convert decimals, as warehouses write whole numbers, to integers; fractions to floats, long numbers to text."""
    if not pa.types.is_decimal(array.type):
        return array
    try:
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid:
        return pc.cast(array, pa.float64() if array.type.scale > 0 else pa.string())


def to_text(array: pa.Array, location: ColumnLocation) -> pa.Array:
    """Convert text and whole numbers to text. Whole floats, as pandas makes of ids with nulls, lose their `.0`."""
    kind = array.type
    if _is_text(kind):
        return array
    if pa.types.is_null(kind):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_integer(kind):
        return pc.cast(array, pa.string())
    if pa.types.is_floating(kind):
        return _floats_to_text(pc.if_else(pc.is_nan(array), None, array), location)
    raise location.error("text or whole numbers", f"type {kind}")


def _floats_to_text(numbers: pa.Array, location: ColumnLocation) -> pa.Array:
    exact = EXACT.get(numbers.type.bit_width, 0)
    values = np.asarray(pc.fill_null(numbers, 0))
    wrong = (values != np.floor(values)) | ~(np.abs(values) < exact)
    if wrong.any():
        row = int(np.argmax(wrong))
        expected = f"text or whole numbers (floats lose digits of numbers from {exact:,})"
        raise location.error(expected, numbers[row].as_py(), row)
    return pc.cast(pc.cast(numbers, pa.int64()), pa.string())


def to_number(array: pa.Array, kind: pa.DataType, location: ColumnLocation) -> pa.Array:
    if _is_text(array.type):
        return parse_numbers(array, kind, location)
    if pa.types.is_integer(kind) and (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return cast_whole(array, kind, location)
    try:
        return pc.cast(array, kind, safe=not pa.types.is_floating(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise location.error(f"a number ({kind})", f"type {array.type}: {first_line(error)}") from None


def to_lists(array: pa.Array, location: ColumnLocation, separator: str) -> pa.Array:
    """Convert lists of any text or whole numbers, or text that stands for a list; empty entries are dropped."""
    kind = array.type
    if not _is_list(kind):
        return split_text(to_text(array, location), separator, location)
    if _is_list(kind.value_type) or pa.types.is_nested(kind.value_type):
        raise location.error("lists of text", f"type {kind}")
    value = kind.value_type
    if not pa.types.is_dictionary(value):
        value = pa.string() if _is_text(value) else pa.binary() if _is_binary(value) else value
    lists = pc.cast(array, pa.list_(value))  # views have no kernels
    filled = lists.drop_null()
    owners = np.asarray(pc.list_parent_indices(filled))
    entries = replace(location, owners=np.flatnonzero(np.asarray(lists.is_valid()))[owners])
    values = to_text(
        _simplify_decimals(clear_missing(_require_utf8(_decode(pc.list_flatten(filled)), entries))), entries
    )
    kept = pc.is_valid(values)
    owners = owners[np.asarray(kept)]
    sizes = np.zeros(len(lists), np.int64)
    sizes[np.asarray(lists.is_valid())] = np.bincount(owners, minlength=len(filled))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.filter(kept), STRINGS, mask=lists.is_null())


def to_flag(array: pa.Array, location: ColumnLocation) -> pa.Array:
    if pa.types.is_boolean(array.type):
        return array
    text = pc.replace_substring_regex(
        pc.utf8_lower(pc.utf8_trim_whitespace(to_text(array, location))), r"^([01])\.0*$", r"\1"
    )
    yes, no = pc.is_in(text, pa.array(YES)), pc.is_in(text, pa.array(NO))
    row = pc.index(pc.and_(pc.is_valid(text), pc.invert(pc.or_(yes, no))), True).as_py()
    if row >= 0:
        raise location.error("true or false", repr(text[row].as_py()), row)
    return pc.if_else(pc.is_valid(text), yes, None)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_list(kind: pa.DataType) -> bool:
    checks = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, check)(kind) for check in checks)
