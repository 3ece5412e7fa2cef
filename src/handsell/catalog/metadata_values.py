"""Values of item and user columns from JSON, in the Arrow types of a table's columns."""

from __future__ import annotations

import base64
import datetime
import json
import logging
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as t

from handsell.core.errors import DataError
from handsell.data.readers.location import ColumnLocation
from handsell.data.readers.times import to_time
from handsell.data.schemas import TIME

log = logging.getLogger(__name__)

MISFITS = (pa.ArrowException, DataError, TypeError, ValueError, OverflowError, ArithmeticError, AttributeError)


def build_column(old: pa.ChunkedArray, kind: pa.DataType, named: np.ndarray, values: Sequence[Any]) -> pa.Array:
    """Return a column (N,): `values` (N,) where `named` (N,), else those of `old`, whose rows are the first ones.

    A value that does not fit the type is null.
    """
    fresh = build_array([values[n] for n in np.flatnonzero(named).tolist()], kind)
    rows = np.arange(len(named))
    rows[named] = len(old) + np.arange(len(fresh))
    missing = ~named & (np.arange(len(named)) >= len(old))
    both = pa.chunked_array([*old.chunks, fresh], type=kind)
    return both.take(pa.array(np.where(missing, 0, rows), mask=missing)).combine_chunks()


def build_array(values: Iterable[Any], kind: pa.DataType) -> pa.Array:
    """Return JSON values as an array; a value that does not fit the type is null."""
    cells = []
    for value in values:
        try:
            cells.append(convert_cell(value, kind))
        except MISFITS as error:
            got, why = type(value).__name__, type(error).__name__  # the value itself may be about a person
            log.warning("a catalog change has a %s for a column of %s, which is left empty (%s)", got, kind, why)
            cells.append(None)
    return pa.array(cells, kind) if cells else pa.nulls(0, kind)


def convert_cell(value: Any, kind: pa.DataType) -> Any:
    """Return a JSON value as `pa.array` takes it for this type; raise one of MISFITS for one that does not fit.

    Times are text or epoch numbers, µs where the type is TIME; binary is base64; other values than text become JSON
    in a column of text; a map is an object, as a struct is.
    """
    cell = _convert(value, kind)
    pa.array([cell], kind)  # raises where, for example, a number is out of range
    return cell


def _convert(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if t.is_dictionary(kind):
        return _convert(value, kind.value_type)
    if t.is_map(kind):
        return [(_convert(k, kind.key_type), _convert(v, kind.item_type)) for k, v in _require(value, dict).items()]
    if t.is_struct(kind):
        given = _require(value, dict)
        return {field.name: _convert(given.get(field.name), field.type) for field in kind}
    if t.is_nested(kind) and hasattr(kind, "value_type"):
        return [_convert(entry, kind.value_type) for entry in _require(value, list)]
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if t.is_binary(kind) or t.is_large_binary(kind):
        return base64.b64decode(value)
    if t.is_floating(kind):
        return float(value)
    if t.is_decimal(kind):
        return round(Decimal(str(value)), kind.scale)
    if t.is_integer(kind) and isinstance(value, float):
        return _require_whole(value)
    if t.is_duration(kind):
        return pa.scalar(round(float(value) * 1e6), pa.duration("us")).cast(kind, safe=False).as_py()
    if (t.is_timestamp(kind) or t.is_date(kind)) and not (kind == TIME and isinstance(value, int)):
        return _convert_time(value, kind)
    if t.is_time(kind) and isinstance(value, str):
        return datetime.time.fromisoformat(value)
    if isinstance(value, str):
        return pa.array([value], pa.string()).cast(kind)[0].as_py()
    return value


def _require(value: Any, kind: type) -> Any:
    """Arrow would end the process on the null of a list that stands for a map."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value


def _require_whole(value: float) -> int:
    """Arrow would drop the fraction."""
    if value != int(value):
        raise ValueError("expected a whole number")
    return int(value)


def _convert_time(value: Any, kind: pa.DataType) -> pa.Scalar:
    if isinstance(value, str):
        try:
            return pa.array([value]).cast(kind)[0]
        except pa.ArrowInvalid:
            pass  # not Arrow's own notation for this type
    time = to_time(pa.array([value]), ColumnLocation("", "", ""))
    if t.is_timestamp(kind) and kind.tz is None:
        time = time.cast(pa.timestamp("us"))
    return time.cast(kind, safe=False)[0]
