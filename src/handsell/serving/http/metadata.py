"""Item metadata as JSON: one rule for each Arrow type, so that every stored value can be answered.

| stored | answered |
|---|---|
| null, NaN, infinity | null |
| decimal | text, exact: `"12.50"` |
| binary | text, base64 |
| date, time | text, ISO 8601: `"2026-06-30"`, `"12:00:00"` |
| timestamp | text, ISO 8601; in UTC with `Z` where the column has a zone |
| duration | number of seconds |
| text that is not UTF-8 | text with U+FFFD for the invalid bytes |
| list | list |
| struct, map | object; the keys of a map as text |
| interval, any other type | text, as Arrow prints it |

Dictionary-encoded, run-end encoded and union values follow the rule of their values, extension types that of their
storage.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import types as t

NOT_SHOWN = ("item_id", "text", "available")  # columns that answers leave out
DAY_MS = 86_400_000
NAT = np.iinfo(np.int64).min  # NumPy has no time for it
UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

Convert = Callable[[Any], Any]


def describe_rows(metadata: pa.Table, item: np.ndarray) -> list[dict[str, Any]]:
    """Return the metadata of each item (n,) as JSON values, without nulls and empty lists."""
    rows: list[dict[str, Any]] = [{} for _ in item]
    for name in metadata.column_names:
        if name in NOT_SHOWN:
            continue
        column = metadata[name]
        convert = find_converter(column.type)
        for row, number in zip(rows, item.tolist(), strict=True):
            value = _convert(column[number], convert)
            if value is not None and value != []:
                row[name] = value
    return rows


def describe_row(metadata: pa.Table, item: int) -> dict[str, Any]:
    """Return all columns of an item as JSON values, without nulls."""
    values = ((name, _convert(metadata[name][item])) for name in metadata.column_names)
    return {name: value for name, value in values if value is not None}


def format_time(us: int) -> str | None:
    """Format a time in µs as answers have it."""
    text = _instant(us, "us")
    return text and text + "Z"


@lru_cache(maxsize=1_000)
def find_converter(kind: pa.DataType) -> Convert:
    """Return the function that converts a scalar of this type, which is not null, to a JSON value."""
    for matches, convert in CONVERTERS:
        if matches(kind):
            return convert
    return lambda scalar: str(scalar.as_py())


def _convert(scalar: Any, convert: Convert | None = None) -> Any:
    if not scalar.is_valid:
        return None
    return (convert or find_converter(scalar.type))(scalar)


def _plain(scalar: Any) -> Any:
    return scalar.as_py()


def _number(scalar: Any) -> float | None:
    value = float(scalar.as_py())
    return value if math.isfinite(value) else None


def _decimal(scalar: Any) -> str:
    return format(scalar.as_py(), "f")


def _text(scalar: Any) -> str:
    return _bytes(scalar).decode(errors="replace")


def _binary(scalar: Any) -> str:
    return base64.b64encode(_bytes(scalar)).decode()


def _bytes(scalar: Any) -> bytes:
    buffer = scalar.as_buffer()
    return b"" if buffer is None else buffer.to_pybytes()


def _instant(value: int, unit: str) -> str | None:
    """Format an instant as ISO 8601, also beyond the years 1 to 9999; no fraction where it is zero."""
    if value == NAT:
        return None
    whole, _, fraction = str(np.int64(value).view(f"datetime64[{unit}]")).partition(".")
    return f"{whole}.{fraction}" if fraction.strip("0") else whole


def _timestamp(scalar: Any) -> str | None:
    text = _instant(scalar.value, scalar.type.unit)
    return text + "Z" if text and scalar.type.tz else text


def _date(scalar: Any) -> str | None:
    return _instant(scalar.value // DAY_MS if t.is_date64(scalar.type) else scalar.value, "D")


def _time(scalar: Any) -> str | None:
    text = _instant(scalar.value, scalar.type.unit)
    return text and text.partition("T")[2]


def _duration(scalar: Any) -> float:
    return scalar.value / UNITS_PER_S[scalar.type.unit]


def _list(scalar: Any) -> list[Any]:
    return [_convert(value) for value in scalar.values]


def _struct(scalar: Any) -> dict[str, Any]:
    return {field.name: _convert(scalar[i]) for i, field in enumerate(scalar.type)}


def _map(scalar: Any) -> dict[str, Any]:
    entries = [[_convert(cell) for cell in (entry[0], entry[1])] for entry in scalar.values]
    return {key if isinstance(key, str) else orjson.dumps(key).decode(): value for key, value in entries}


def _convert_scalar(scalar: Any) -> Any:
    return _convert(scalar.value)


CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Convert], ...] = (
    (lambda kind: t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind), _text),
    (lambda kind: t.is_integer(kind) or t.is_boolean(kind), _plain),
    (t.is_floating, _number),
    (t.is_decimal, _decimal),
    (
        lambda kind: (
            t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind)
        ),
        _binary,
    ),
    (t.is_timestamp, _timestamp),
    (t.is_date, _date),
    (t.is_time, _time),
    (t.is_duration, _duration),
    (t.is_map, _map),
    (
        lambda kind: (
            t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
            or t.is_list_view(kind) or t.is_large_list_view(kind)
        ),
        _list,
    ),
    (t.is_struct, _struct),
    (t.is_dictionary, _convert_scalar),
    (t.is_run_end_encoded, _convert_scalar),
    (t.is_union, _convert_scalar),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _convert_scalar),
)  # fmt: skip
