"""Convert numbers that are written as text; decide for a column which sign separates decimals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.data.readers.location import ColumnLocation, first_line

PLAIN = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^(?i:[+-]?inf(inity)?)$"
WHOLE = r"^[+-]?\d{1,15}(\.0*)?$"
GROUPED = {".": r"^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$", ",": r"^[+-]?\d{1,3}(\.\d{3})+(,\d*)?$"}  # by decimal sign
AMBIGUOUS = r"^[+-]?[1-9]\d{0,2},\d{3}$"
COMMA_DECIMAL = r"^[+-]?(\d+|\d{1,3}(\.\d{3})+)?,\d+([eE][+-]?\d+)?$|^[+-]?\d{1,3}(\.\d{3}){2,}$"
POINT_DECIMAL = r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$|^[+-]?\d{1,3}(,\d{3})+\.\d*$|^[+-]?\d{1,3}(,\d{3}){2,}$"
POINT_GROUPS = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"

INTEGER = r"^-?(0|[1-9]\d{0,17})$"
DECIMAL = r"^-?((0|[1-9]\d*)(\.\d+)?|\.\d+)([eE][+-]\d+)?$|^(?i:-?inf(inity)?)$"
LONG_INTEGER = r"^-?\d{19,}$"
BOOLEAN = r"^(?i:true|false)$"


def has_commas(text: pa.Array) -> bool:
    return bool(pc.any(pc.match_substring(text, ",")).as_py())


def decide_decimal(texts: Iterable[pa.Array], location: ColumnLocation) -> str:
    """Return the decimal sign of a column of numbers with commas; raise DataError if the column does not show it."""
    shown: dict[str, str] = {}
    for text in texts:
        text = pc.utf8_trim_whitespace(text).drop_null()
        ambiguous = pc.match_substring_regex(text, AMBIGUOUS)
        either = pc.or_(ambiguous, pc.match_substring_regex(text, POINT_GROUPS))
        for sign, pattern in ((",", COMMA_DECIMAL), (".", POINT_DECIMAL)):
            found = text.filter(pc.and_(pc.match_substring_regex(text, pattern), pc.invert(either)))
            if len(found):
                shown.setdefault(sign, found[0].as_py())
        if len(found := text.filter(ambiguous)):
            shown.setdefault("", found[0].as_py())
    if "," in shown and "." in shown:
        raise location.error("numbers with one decimal sign", f"{shown[',']!r} and {shown['.']!r}")
    if "," not in shown and "." not in shown and "" in shown:
        whole, part = shown[""].split(",")
        raise location.error(
            'a decimal sign that the column shows, or csv = { decimal = "," } or { decimal = "." } in the section of '
            "the table",
            f"{shown['']!r}, which may be {whole}.{part} or {whole}{part}",
        )
    return "," if "," in shown else "."


def show_decimal_commas(texts: Iterable[pa.Array | pa.ChunkedArray]) -> bool:
    """Whether a column contains numbers with a decimal comma, and none with a decimal point."""
    found = False
    for text in texts:
        point = pc.and_not(pc.match_substring_regex(text, POINT_DECIMAL), pc.match_substring_regex(text, POINT_GROUPS))
        if pc.any(point).as_py():
            return False
        comma = pc.or_(pc.match_substring_regex(text, COMMA_DECIMAL), pc.match_substring_regex(text, AMBIGUOUS))
        found = found or bool(pc.any(comma).as_py())
    return found


def normalize_numbers(text: pa.Array, decimal: str | None) -> pa.Array:
    """Rewrite numbers with a decimal sign and groups of digits as plain numbers; other text is unchanged."""
    if decimal is None:
        return text
    other = "." if decimal == "," else ","
    grouped = pc.match_substring_regex(text, GROUPED[decimal])
    text = pc.if_else(grouped, pc.replace_substring(text, other, ""), text)
    simple = pc.match_substring_regex(text, r"^[+-]?\d*,\d+([eE][+-]?\d+)?$")
    return pc.if_else(simple, pc.replace_substring(text, ",", "."), text) if decimal == "," else text


def parse_numbers(text: pa.Array, kind: pa.DataType, location: ColumnLocation) -> pa.Array:
    """Convert text to numbers; raise DataError with the row of the first other text."""
    text = normalize_numbers(pc.utf8_trim_whitespace(text), location.decimal)
    whole = pa.types.is_integer(kind)
    pattern = WHOLE if whole else PLAIN
    wrong = np.asarray(pc.fill_null(pc.invert(pc.match_substring_regex(text, pattern)), False))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise location.error(f"a number ({kind})", repr(text[row].as_py()), row)
    plain = pc.replace_substring_regex(text, r"^\+", "")
    try:
        if whole:
            integers = pc.cast(pc.replace_substring_regex(plain, r"\.0*$", ""), pa.int64())
            return cast_whole(integers, kind, location)
        return pc.cast(pc.cast(plain, pa.float64()), kind, safe=False)
    except pa.ArrowInvalid as error:
        raise location.error(f"a number ({kind})", first_line(error)) from None


def cast_whole(numbers: pa.Array, kind: pa.DataType, location: ColumnLocation) -> pa.Array:
    """Cast numbers to integers; raise DataError with the row of the first that does not fit."""
    limits = np.iinfo(kind.to_pandas_dtype())
    values = np.asarray(pc.fill_null(pc.cast(numbers, pa.float64(), safe=False), 0))
    wrong = (values != np.floor(values)) | (values < limits.min) | (values > limits.max)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise location.error(f"a number ({kind})", numbers[row].as_py(), row)
    return pc.cast(numbers, kind)


def infer_type(text: pa.Array, plain: pa.Array) -> pa.Array:
    """Convert a whole text column to booleans, integers or floats if all values are such; otherwise return it as it is.

    `plain`: the same with numbers normalized. Numbers that are not written as numbers usually are, such as 007, +49 or
    more than 18 digits, make the column text.
    """
    values = plain.drop_null()
    if not len(values):
        return text
    if _all_match(values, BOOLEAN):
        return pc.equal(pc.utf8_lower(text), "true")
    if _all_match(values, INTEGER):
        return pc.cast(plain, pa.int64())
    if not _all_match(values, DECIMAL) or pc.any(pc.match_substring_regex(values, LONG_INTEGER)).as_py():
        return text
    return pc.cast(plain, pa.float64())


def _all_match(values: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())
