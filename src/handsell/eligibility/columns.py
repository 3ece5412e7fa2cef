"""Item attributes for filters: columns of the snapshot's metadata."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.core.offsets import offsets_from_counts
from handsell.eligibility.arrow_values import read_values

NUMBER, FLAG, TEXT, TIME, TEXTS = "number", "true or false", "text", "time", "list of texts"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
COMPARE_TEXT = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip


def find_kind(kind: pa.DataType) -> str | None:
    """Return the kind of a column of this type; None if filters cannot read it."""
    t = pa.types
    if t.is_dictionary(kind):
        kind = kind.value_type
    if t.is_boolean(kind):
        return FLAG
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        return NUMBER
    if _is_text(kind):
        return TEXT
    if t.is_timestamp(kind) or t.is_date(kind):
        return TIME
    if (t.is_list(kind) or t.is_large_list(kind)) and _is_text(kind.value_type):
        return TEXTS
    return None


def parse_micros(text: str) -> int:
    """Parse a date (midnight UTC) or an RFC 3339 time with a zone to µs; raises ValueError."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        if len(text) != len("2024-01-31"):
            raise ValueError("no zone")
        time = time.replace(tzinfo=UTC)
    return (time - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Column:
    """I values. Methods return (I,) bool, undefined where `known` is False."""

    kind: str
    values: Any  # (I,) numbers, flags, µs, an Arrow array of texts, or Texts
    known: np.ndarray | None  # (I,) bool; None: all of them

    @classmethod
    def of(cls, chunks: pa.ChunkedArray) -> Column:
        """Build a column; numbers without nulls are not copied."""
        array = chunks.combine_chunks()
        kind = find_kind(array.type)
        assert kind is not None  # checked with the expression
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        known = read_values(array.is_valid()) if array.null_count else None
        if kind == TEXT:
            return cls(kind, pc.fill_null(array.cast(pa.large_string()), ""), known)
        if kind == TEXTS:
            return cls(kind, Texts.of(array), known)
        if kind == TIME:
            array = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        if pa.types.is_decimal(array.type):
            array = array.cast(pa.float64())
        values = read_values(pc.fill_null(array, False if kind == FLAG else 0) if known is not None else array)
        if values.dtype.kind == "f" and np.isnan(values).any():
            known = ~np.isnan(values) if known is None else known & ~np.isnan(values)
        return cls(kind, values, known)

    def compare(self, op: str, value: Any) -> np.ndarray:
        """Compare values; numbers in the precision of the column."""
        if self.kind == TEXT:
            return read_values(COMPARE_TEXT[op](self.values, pa.scalar(value, pa.large_string())))
        with np.errstate(over="ignore"):
            return COMPARE[op](self.values, value)

    def is_among(self, values: tuple[Any, ...]) -> np.ndarray:
        """Return whether the value is one of these."""
        if self.kind == TEXT:
            return read_values(pc.is_in(self.values, pa.array(values, pa.large_string())))
        found = np.zeros(len(self.values), bool)
        for value in set(values):
            found |= self.compare("==", value)
        return found

    def contains(self, value: str) -> np.ndarray:
        """Return whether the list contains the text."""
        return self.values.contains(value)


@dataclass(frozen=True, slots=True)
class Texts:
    """I lists of texts, dictionary encoded, so that a test compares integers."""

    terms: pa.Array  # distinct texts
    term: np.ndarray  # (N,) int32 of all lists, concatenated; -1 for null
    offsets: np.ndarray  # (I + 1,)

    @classmethod
    def of(cls, lists: pa.ListArray) -> Texts:
        coded = lists.flatten().dictionary_encode()
        term = read_values(pc.fill_null(coded.indices, -1))
        lengths = read_values(pc.fill_null(lists.value_lengths(), 0))
        return cls(coded.dictionary, term, offsets_from_counts(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def contains(self, value: str) -> np.ndarray:
        """(I,) bool."""
        found = np.zeros(len(self), bool)
        number = pc.index(self.terms, pa.scalar(value, self.terms.type)).as_py()
        if number >= 0:
            found[np.searchsorted(self.offsets, np.flatnonzero(self.term == number), side="right") - 1] = True
        return found


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
