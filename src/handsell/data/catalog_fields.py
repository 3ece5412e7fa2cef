"""Fields of items and users that come as JSON, converted by the same rules as the rows of tables.

| field | stored as |
|---|---|
| title, text | text or null |
| creators, tags | list of text or null |
| published_at, expires_at | int µs or null |
| available | true, false or null |
| other columns | JSON; numbers, flags, lists and text where the column has that type, see `convert_value` |
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pyarrow import types as t

from handsell.catalog.metadata_values import MISFITS, convert_cell
from handsell.core.errors import DataError
from handsell.data.readers.conversion import MISSING, convert
from handsell.data.readers.lists import SEPARATORS, choose_separator
from handsell.data.readers.location import ColumnLocation
from handsell.data.readers.times import MODERN_US, UNITS, to_time
from handsell.data.schemas import ID_CHARACTERS, ITEMS, STRINGS, TIME

CANONICAL = {field.name: field.type for field in ITEMS if field.name != "item_id"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USUAL_TIME = re.compile(r"^(19[7-9]\d|20\d\d)-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?(Z|[+-]\d\d:\d\d)$", re.ASCII)
EPOCH_DIGITS = (10, 13, 16)  # numbers of these lengths are no dates such as 20260501
NEAR = 0.75  # similarity of a new column's name to a canonical name that is probably a typo, as in tables


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """A field that cannot be stored, and why."""

    field: str
    detail: str


@dataclass(slots=True)
class FieldLocation(ColumnLocation):
    """A field of a JSON object, for the messages of the readers."""

    def error(self, expected: str, got: object, row: int | None = None) -> DataError:
        return DataError(f"expected {expected}, got {got}")

    def name_row(self, row: int) -> str:
        return "this field"


@dataclass(frozen=True)
class FieldRules:
    """Converts the fields of one kind of row: items, or users."""

    canonical: Mapping[str, pa.DataType]  # columns with a fixed meaning
    key: str  # name of the id's column
    columns: Mapping[str, tuple[pa.DataType, str]]  # other columns with a known type, and what says so
    separator: str | None = None  # of creators and tags in text; None: the first usual one in the text

    @classmethod
    def of_items(cls, columns: Mapping[str, tuple[pa.DataType, str]], separator: str | None = None) -> FieldRules:
        """Rules of items; `columns`: name → type, and the setting or table that gives it this type."""
        return cls(CANONICAL, "item_id", columns, separator)

    @classmethod
    def of_users(cls, columns: Mapping[str, tuple[pa.DataType, str]]) -> FieldRules:
        return cls({}, "user_id", columns)

    def convert(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[FieldProblem]]:
        """Return the fields as stored, without the id, and the problems of those that cannot be stored."""
        fields: dict[str, Any] = {}
        problems = []
        for name, value in given.items():
            if name == self.key:
                continue
            try:
                fields[name] = self._convert(name, value)
            except DataError as error:
                problems.append(FieldProblem(name, f"{name}: {error}"))
        return fields, problems

    def complete(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Add the canonical columns that are absent, as null: a whole row."""
        return {**dict.fromkeys(self.canonical), **fields}

    def _convert(self, name: str, value: Any) -> Any:
        if name in self.canonical:
            return convert_value(name, value, self.canonical[name], self.separator)
        if name in self.columns:
            kind, setting = self.columns[name]
            try:
                return convert_value(name, value, kind, self.separator)
            except DataError as error:
                raise DataError(f"{error}, because of {setting}") from None
        self._check_name(name)
        return None if isinstance(value, str) and value.strip() in MISSING else value

    def _check_name(self, name: str) -> None:
        """Raise DataError for the name of a new column that is empty, long, unprintable, or nearly another name."""
        if not 0 < len(name) <= ID_CHARACTERS or any(ord(c) < 32 or ord(c) == 127 for c in name):
            raise DataError(f"expected a name of 1 to {ID_CHARACTERS} characters without control characters")
        known = [self.key, *self.canonical]
        plain = name.strip().casefold()
        if near := difflib.get_close_matches(plain, known, 1, cutoff=NEAR):
            raise DataError(
                f"expected one of {', '.join(known)}, or a clearly different name for an extra column; got {name} "
                f"(perhaps {near[0]}?)"
            )


def convert_value(name: str, value: Any, kind: pa.DataType, separator: str | None = None) -> Any:
    """Convert a JSON value to the JSON value that is stored in a column of this type; raise DataError.

    TIME becomes int µs. Times of other types, and values of nested types, are checked and kept as they are.
    """
    if value is None or (isinstance(value, str) and value.strip() in MISSING):
        return None
    location = FieldLocation("", name, name)
    if kind == STRINGS or _is_text_list(kind):
        return _to_list(value, separator or _choose_separator(value, name), location)
    if t.is_floating(kind) or t.is_integer(kind) or t.is_decimal(kind):
        return _to_number(value, location)
    if t.is_string(kind) or t.is_large_string(kind) or t.is_boolean(kind):
        simple = pa.bool_() if t.is_boolean(kind) else pa.string()
        if isinstance(value, bool if t.is_boolean(kind) else str):
            return value
        return convert(_to_array(value, location), simple, location, "|")[0].as_py()
    if kind == TIME:
        usual = _read_usual_time(value)
        return (
            usual
            if usual is not None
            else convert(_to_array(value, location), TIME, location, "|").cast(pa.int64())[0].as_py()
        )
    if t.is_timestamp(kind) or t.is_date(kind):
        to_time(_to_array(value, location), location)
    else:
        _require_fit(value, kind, location)
    return value


def _read_usual_time(value: Any) -> int | None:
    """Return the µs of the usual notations, 30 times faster than a column of one; None for any other."""
    if isinstance(value, str) and USUAL_TIME.match(value):
        try:
            since = datetime.fromisoformat(value) - EPOCH
        except ValueError:
            return None
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if type(value) is int:
        for unit in ("s", "ms", "µs"):
            factor = int(UNITS[unit])
            if MODERN_US[0] <= value * factor < MODERN_US[1] and len(str(value)) in EPOCH_DIGITS:
                return value * factor
    return None


def _to_list(value: Any, separator: str, location: FieldLocation) -> list[str]:
    """Convert a list of text or whole numbers, or text that stands for a list."""
    if isinstance(value, str) and value.lstrip()[:1] not in "[{(":
        return [word for part in value.split(separator) if (word := part.strip())]
    if not isinstance(value, list):
        return convert(_to_array(value, location), STRINGS, location, separator)[0].as_py()
    entries = []
    for entry in value:
        if isinstance(entry, (list, dict)):
            raise location.error("lists of text", f"a list of {'lists' if isinstance(entry, list) else 'objects'}")
        text = entry if isinstance(entry, str) else _to_text(entry, location)
        if text is not None and text.strip() not in MISSING:
            entries.append(text)
    return entries


def _to_text(value: Any, location: FieldLocation) -> str | None:
    return convert(_to_array(value, location), pa.string(), location, "|")[0].as_py()


def _choose_separator(value: Any, name: str) -> str:
    if not isinstance(value, str):
        return "|"
    if value.lstrip()[:1] in "[{(":
        return choose_separator([pa.array([value])], name)
    return next((sign for sign in SEPARATORS.get(name, ("|",)) if sign in value), "|")


def _to_number(value: Any, location: FieldLocation) -> int | float:
    """Return a number; text is read as the features step reads it."""
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, bool) else value
    try:
        number = pa.array([value.strip()] if isinstance(value, str) else [value]).cast(pa.float64())[0].as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise location.error("a number", _show(value)) from None
    if number is None or not math.isfinite(number):
        raise location.error("a finite number", _show(value))
    return int(number) if number == int(number) and abs(number) < 2**53 else number


def _require_fit(value: Any, kind: pa.DataType, location: FieldLocation) -> None:
    try:
        convert_cell(value, kind)
    except MISFITS:
        raise location.error(f"a value of type {kind}", _show(value)) from None


def _to_array(value: Any, location: FieldLocation) -> pa.Array:
    try:
        return pa.array([value])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        raise location.error("a value that a table can hold", _show(value)) from None


def _is_text_list(kind: pa.DataType) -> bool:
    return (t.is_list(kind) or t.is_large_list(kind)) and (
        t.is_string(kind.value_type) or t.is_large_string(kind.value_type)
    )


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
