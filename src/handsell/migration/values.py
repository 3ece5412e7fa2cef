"""Checks and conversions of single values that foreign records hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pyarrow as pa

from handsell.core.errors import DataError
from handsell.data.readers.conversion import MISSING, convert
from handsell.data.readers.location import ColumnLocation
from handsell.data.schemas import ID_CHARACTERS, TIME

Skip = Callable[[int, str], None]


def read_id(value: Any) -> str | None:
    """Return an id as text; None where there is none. Raises ValueError for what cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and value.strip() in MISSING):
        return None
    if not isinstance(value, str):
        raise ValueError(f"an id that is neither text nor a whole number ({type(value).__name__})")
    if len(value) > ID_CHARACTERS:
        raise ValueError(f"an id of more than {ID_CHARACTERS} characters")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("an id with control characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("an id that is not valid Unicode") from None
    return value


def read_number(value: Any) -> float | None:
    """Return a finite number; None for null and for what is no number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 3e38 else None


def to_json(value: Any) -> str:
    """Return a value as JSON text; raises ValueError for one that is nested too deeply."""
    try:
        return orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, RecursionError):
        raise ValueError("a value nested in more than 250 levels") from None


def is_no_time(value: Any) -> bool:
    """Whether a value stands for a time that is not known, such as year 1, Go's zero."""
    return value is None or (isinstance(value, str) and (value.strip() in MISSING or value.startswith("0001-01-01")))


def read_times(values: Sequence[Any], path: str, skip: Skip) -> list[int | None]:
    """Return µs of times in any notation of tables; `skip` is told the index and the reason of those that are none.

    Values are converted together, and in ever smaller parts where one of them cannot be read.
    """
    found: list[int | None] = [None] * len(values)
    texts = [None if is_no_time(v) else str(v) if not isinstance(v, bool) else "" for v in values]
    for index, text in enumerate(texts):
        if text is None:
            skip(index, "no time")
    _read_part(texts, 0, path, found, skip)
    return found


def _read_part(texts: list[str | None], start: int, path: str, found: list[int | None], skip: Skip) -> None:
    if not texts:
        return
    try:
        times = convert(pa.array(texts, pa.string()), TIME, ColumnLocation(path, "time", "time"), "|")
    except DataError:
        if len(texts) == 1:
            skip(start, "a time that cannot be read")
            return
        half = len(texts) // 2
        _read_part(texts[:half], start, path, found, skip)
        _read_part(texts[half:], start + half, path, found, skip)
        return
    for index, value in enumerate(times.cast(pa.int64()).to_pylist()):
        found[start + index] = value
        if value is None and texts[index] is not None:
            skip(start + index, "a time that cannot be read")
