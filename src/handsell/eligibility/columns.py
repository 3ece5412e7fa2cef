"""Item attributes as filters read them: columns of the snapshot's metadata, by kind."""

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

NUMBER, FLAG, TEXT, TIME, TEXTS = "number", "true or false", "text", "time", "list of texts"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
COMPARE_TEXT = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip


def kind_of(kind: pa.DataType) -> str | None:
    """How a filter sees a column of this type; None where it cannot."""
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


def micros(text: str) -> int:
    """A date (its midnight in UTC) or RFC 3339 with a zone, as µs; raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        if len(text) != len("2024-01-31"):
            raise ValueError("no zone")
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Column:
    """I values. Every method gives (I,) bool, of no meaning where `known` is False."""

    kind: str
    values: Any  # (I,) numbers, flags, µs or Texts; texts stay with Arrow
    known: np.ndarray | None  # (I,) bool; None: all of them

    @classmethod
    def of(cls, chunks: pa.ChunkedArray) -> Column:
        """Numbers without nulls are not copied."""
        array = chunks.combine_chunks()
        kind = kind_of(array.type)
        assert kind is not None  # checked when the expression was
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        known = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        if kind == TEXT:
            return cls(kind, pc.fill_null(array.cast(pa.large_string()), ""), known)
        if kind == TEXTS:
            return cls(kind, Texts.of(array), known)
        if kind == TIME:
            array = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        if pa.types.is_decimal(array.type):
            array = array.cast(pa.float64())
        values = (pc.fill_null(array, False if kind == FLAG else 0) if known is not None else array).to_numpy(
            zero_copy_only=False
        )
        if values.dtype.kind == "f" and np.isnan(values).any():
            known = ~np.isnan(values) if known is None else known & ~np.isnan(values)
        return cls(kind, values, known)

    def compare(self, op: str, value: Any) -> np.ndarray:
        """Numbers are compared in the precision of the column."""
        if self.kind == TEXT:
            return COMPARE_TEXT[op](self.values, pa.scalar(value, pa.large_string())).to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            return COMPARE[op](self.values, value)

    def among(self, values: tuple[Any, ...]) -> np.ndarray:
        """Whether it is one of the given values."""
        if self.kind == TEXT:
            return pc.is_in(self.values, pa.array(values, pa.large_string())).to_numpy(zero_copy_only=False)
        found = np.zeros(len(self.values), bool)
        for value in set(values):
            found |= self.compare("==", value)
        return found

    def holds(self, value: str) -> np.ndarray:
        """Whether the list has the text in it."""
        return self.values.holds(value)


@dataclass(frozen=True, slots=True)
class Texts:
    """I lists of texts as numbers of distinct ones: a test compares whole numbers, not texts."""

    terms: pa.Array  # distinct texts
    term: np.ndarray  # (N,) int32, all lists end to end; -1 for null
    offsets: np.ndarray  # (I + 1,) of each list

    @classmethod
    def of(cls, lists: pa.ListArray) -> Texts:
        """Reads every text once."""
        coded = lists.flatten().dictionary_encode()
        term = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
        lengths = pc.fill_null(lists.value_lengths(), 0).to_numpy(zero_copy_only=False)
        return cls(coded.dictionary, term, offsets_from_counts(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def holds(self, value: str) -> np.ndarray:
        """(I,) bool."""
        found = np.zeros(len(self), bool)
        number = pc.index(self.terms, pa.scalar(value, self.terms.type)).as_py()
        if number >= 0:
            found[np.searchsorted(self.offsets, np.flatnonzero(self.term == number), side="right") - 1] = True
        return found


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
