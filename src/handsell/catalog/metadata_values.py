"""Values of item metadata from JSON, in the Arrow types of a bundle's columns."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types as t

log = logging.getLogger(__name__)


def build_column(old: pa.ChunkedArray, kind: pa.DataType, named: np.ndarray, values: Sequence[Any]) -> pa.Array:
    """Return a column (N,): `values` (N,) where `named` (N,), else those of `old`, whose rows are the first ones.

    A value that does not fit the type is null.
    """
    cells = [_convert(values[n], kind) for n in np.flatnonzero(named).tolist()]
    fresh = pa.array(cells, kind) if len(cells) else pa.nulls(0, kind)
    rows = np.arange(len(named))
    rows[named] = len(old) + np.arange(len(fresh))
    missing = ~named & (np.arange(len(named)) >= len(old))
    both = pa.chunked_array([*old.chunks, fresh], type=kind)
    return both.take(pa.array(np.where(missing, 0, rows), mask=missing)).combine_chunks()


def _convert(value: Any, kind: pa.DataType) -> Any:
    """Return a value as Arrow takes it for this type: times are texts or µs, decimals texts, binary is base64."""
    if value is None:
        return None
    try:
        if t.is_dictionary(kind):
            return _convert(value, kind.value_type)
        if (t.is_timestamp(kind) or t.is_date(kind) or t.is_time(kind)) and isinstance(value, int):
            return pa.scalar(value, pa.timestamp("us", tz="UTC")).cast(kind, safe=False).as_py()
        if t.is_binary(kind) or t.is_large_binary(kind):
            return base64.b64decode(value)
        if t.is_duration(kind):
            return pa.scalar(round(value * 1e6), pa.duration("us")).cast(kind).as_py()
        if isinstance(value, str) and not (t.is_string(kind) or t.is_large_string(kind)):
            return pa.array([value], pa.string()).cast(kind)[0].as_py()
        if t.is_string(kind) or t.is_large_string(kind):
            return value if isinstance(value, str) else None
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError) as error:
        log.warning("a catalog change has %.80r for a column of %s, which is left empty: %s", value, kind, error)
        return None
