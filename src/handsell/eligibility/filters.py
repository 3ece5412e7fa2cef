"""Filter expressions: `item.year >= 2015 and 'Jazz' in item.tags and not item.explicit` → a mask over the catalogue.

Logic has three values, as in SQL: a test of a null is unknown, so is its negation, and an item is kept only where
the whole is true. What is not known of an item therefore never lets it through.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from handsell.catalogue.snapshot import Snapshot
from handsell.core.errors import FilterError
from handsell.eligibility.columns import FLAG, NUMBER, TEXT, TEXTS, TIME, Column, kind_of, micros
from handsell.eligibility.grammar import Attribute, Junction, Literal, Node, Not, Test, parse

CACHE_BYTES = 64 * 2**20  # of masks, per catalogue
LONGEST_LISTING = 1_000  # characters that tell which attributes there are
ITEM = "item."
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
SHAPES = {
    NUMBER: "{0} >= 2015, or {0} in [2014, 2015]",
    FLAG: "{0}, not {0}, or {0} == true",
    TEXT: "{0} == 'a', or {0} in ['a', 'b']",
    TIME: "{0} >= '2024-01-31', or with a time and zone '2024-01-31T12:00:00Z'",
    TEXTS: "'a' in {0}",
}

Truth = tuple[np.ndarray, np.ndarray]  # (I,) bool: surely true, surely false
Plan = Callable[[], Truth]


class Filters:
    """The filters of one catalogue, by its metadata (I rows); checked expressions and masks are kept, newest first."""

    def __init__(self, metadata: pa.Table):
        self._metadata = metadata
        kinds = ((name, kind_of(metadata.schema.field(name).type)) for name in metadata.column_names)
        self.attributes: dict[str, str] = {name: kind for name, kind in kinds if kind is not None}
        entries = int(np.clip(CACHE_BYTES // max(len(metadata), 1), 8, 1_024))
        self._plan = lru_cache(1_024)(lambda expression: self._node(parse(expression)))
        self._column = lru_cache(None)(lambda name: Column.of(metadata[name]))
        self.mask = lru_cache(entries)(self._mask)

    def check(self, expression: str) -> None:
        """Raises FilterError with the column, what was expected, what came, and which attributes there are."""
        self._plan(expression)

    def _mask(self, expression: str) -> np.ndarray:
        """(I,) bool, read-only: the items that pass. Raises FilterError."""
        passes, _ = self._plan(expression)()
        passes.flags.writeable = False
        return passes

    # -- a plan of a checked tree -----------------------------------------------------------------------------

    def _node(self, node: Node) -> Plan:
        if isinstance(node, Test):
            return self._test(node)
        if isinstance(node, Not):
            part = self._node(node.part)
            return lambda: part()[::-1]
        parts = [self._node(part) for part in node.parts]
        return lambda: _joined(node, [part() for part in parts])

    def _test(self, test: Test) -> Plan:
        left, op, right = test.left, test.op, test.right
        if isinstance(left, Literal) and isinstance(right, Attribute) and op != "in":
            left, op, right = right, MIRRORED.get(op, op), left
        if op == "in" and isinstance(right, Attribute):
            return self._membership(left, right)
        name, kind = self._attribute(left)
        if op == "null":
            return lambda: _nulls(self._column(name), len(self._metadata))
        if op == "flag":
            right, op = Literal(True, left.at), "=="
            if kind != FLAG:
                raise _misfit(left, kind, f"{ITEM}{name} alone")
        if not isinstance(right, Literal):
            assert right is not None
            hint = f" (write {ITEM}{name} is null)" if right.name in ("null", "None") else ""
            raise FilterError(f"expected a value, not another name; came {right.name:.80}{hint}", right.at)
        value = _fitting(left, kind, op, right)
        if op == "in":
            return lambda: _truth(self._column(name), self._column(name).among(value))
        return lambda: _truth(self._column(name), self._column(name).compare(op, value))

    def _membership(self, left: Any, right: Attribute) -> Plan:
        name, kind = self._attribute(right)
        if kind != TEXTS:
            raise _misfit(right, kind, f"in {right.name}")
        if not isinstance(left, Literal) or not isinstance(left.value, str):
            came = left.name if isinstance(left, Attribute) else _shown(left.value)
            raise FilterError(f"expected a text in quotes before in; came {came}", left.at)
        return lambda: _truth(self._column(name), self._column(name).holds(left.value))

    def _attribute(self, value: Any) -> tuple[str, str]:
        """Name and kind of an attribute that exists."""
        if not isinstance(value, Attribute):
            raise FilterError(f"expected a test of item.<attribute>; came {_shown(value.value)}", value.at)
        name = value.name.removeprefix(ITEM)
        if value.name.startswith(ITEM) and name in self.attributes:
            return name, self.attributes[name]
        raise self._unknown(value, name)

    def _unknown(self, value: Attribute, name: str) -> FilterError:
        if value.name.startswith("user."):
            why = "a filter reads items only; write what you know of the user into the expression"
        elif value.name.startswith(ITEM) and name in self._metadata.column_names:
            why = f"{value.name:.80} holds {self._metadata.schema.field(name).type}, which filters do not read"
        else:
            why = f"there is no {value.name:.80}"
        close = difflib.get_close_matches(name.split(".")[0], self.attributes, 1)
        meant = f"; did you mean {ITEM}{close[0]:.80}?" if close else ""
        there = ", ".join(f"{ITEM}{name} ({kind})" for name, kind in self.attributes.items())
        there = (
            there if len(there) <= LONGEST_LISTING else f"{there[:LONGEST_LISTING]}… ({len(self.attributes)} in all)"
        )
        return FilterError(f"{why}{meant or ';'} there are: {there}", value.at)


_OF: WeakKeyDictionary[Snapshot, Filters] = WeakKeyDictionary()


def filters_of(snapshot: Snapshot) -> Filters:
    """The one Filters of a snapshot in this process, so that all stages share its masks."""
    found = _OF.get(snapshot)
    if found is None:
        found = _OF.setdefault(snapshot, Filters(snapshot.metadata))
    return found


def _fitting(attribute: Any, kind: str, op: str, literal: Literal) -> Any:
    """The literal as the column wants it; raises FilterError where types or operators do not go together."""
    several = isinstance(literal.value, tuple)
    if several != (op == "in"):
        raise _misfit(attribute, kind, f"{op} {_shown(literal.value)}")
    if several:
        return tuple(_one(attribute, kind, op, value, literal.at) for value in literal.value)
    return _one(attribute, kind, op, literal.value, literal.at)


def _one(attribute: Any, kind: str, op: str, value: Any, at: int) -> Any:
    if kind == NUMBER and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if kind == TEXT and isinstance(value, str):
        return value
    if kind == FLAG and isinstance(value, bool) and op in ("==", "!="):
        return value
    if kind == TIME and isinstance(value, str):
        try:
            return micros(value)
        except (ValueError, OverflowError):
            raise FilterError(f"expected a date such as '2024-01-31', or with a time and zone "
                              f"'2024-01-31T12:00:00Z'; came {_shown(value)}", at) from None  # fmt: skip
    raise _misfit(attribute, kind, f"{op} {_shown(value)}")


def _misfit(attribute: Any, kind: str, came: str) -> FilterError:
    shape = SHAPES[kind].format(attribute.name)
    return FilterError(f"{attribute.name} is a {kind}: expected {shape}; came {came}", attribute.at)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "a list"
    return str(value).lower() if isinstance(value, bool) else f"{value!r:.60}"


def _truth(column: Column, true: np.ndarray) -> Truth:
    if column.known is None:
        return true, ~true
    return true & column.known, ~true & column.known


def _nulls(column: Column, items: int) -> Truth:
    known = np.ones(items, bool) if column.known is None else column.known
    return ~known, known


def _joined(node: Junction, parts: list[Truth]) -> Truth:
    """`and` is true where all are true and false where any is false; `or` the other way round."""
    true, false = (np.logical_and, np.logical_or) if node.every else (np.logical_or, np.logical_and)
    return true.reduce([part[0] for part in parts]), false.reduce([part[1] for part in parts])
