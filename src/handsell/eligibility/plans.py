"""Plans of filter expressions: checked once against the attributes of items and users, then run for each mask.

A test reads items, with user attributes as values, or only the user, as a table of one row. Logic has three values, as
in SQL: a test of a null is unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.core.errors import FilterError
from handsell.eligibility.columns import FLAG, NUMBER, TEXT, TEXTS, TIME, Column, parse_micros
from handsell.eligibility.grammar import Attribute, Junction, Literal, Node, Not, Test, Value, find_attributes

ITEM, USER = "item.", "user."
LONGEST_LISTING = 1_000  # characters of the attributes that an error lists
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
SHAPES = {
    NUMBER: "{0} >= 2015, or {0} in [2014, 2015]",
    FLAG: "{0}, not {0}, or {0} == true",
    TEXT: "{0} == 'a', or {0} in ['a', 'b']",
    TIME: "{0} >= '2024-01-31', or with a time and zone '2024-01-31T12:00:00Z'",
    TEXTS: "'a' in {0}",
}
OF_USER: dict[str, tuple[pa.DataType, Any]] = {  # kind → Arrow type, and a value for checking expressions
    NUMBER: (pa.float64(), 1),
    FLAG: (pa.bool_(), True),
    TEXT: (pa.string(), "a"),
    TEXTS: (pa.list_(pa.string()), ("a",)),
}

Truth = tuple[np.ndarray, np.ndarray]  # (I,) bool, or (1,) of the user alone: known to be true, known to be false
Plan = Callable[[], Truth]
User = tuple[tuple[str, str, Any], ...]  # name, kind and value of each attribute; a list is a tuple, None is null


@dataclass(frozen=True)
class ColumnSource:
    """The attributes of one prefix, with their kinds and columns of R rows."""

    prefix: str
    kinds: Mapping[str, str]
    column: Callable[[str], Column]
    unread: Mapping[str, str]  # name → type of columns that filters cannot read

    @classmethod
    def of_user(cls, user: User) -> ColumnSource:
        held = {name: pa.chunked_array([pa.array([value], OF_USER[kind][0])]) for name, kind, value in user}
        return cls(USER, {name: kind for name, kind, _ in user}, lambda name: Column.of(held[name]), {})

    def resolve(self, value: Value | None) -> tuple[str, str]:
        """Return name and kind of an attribute; raises FilterError if it does not exist."""
        if not isinstance(value, Attribute):
            assert value is not None
            raise FilterError(f"expected a test of item.<attribute>; got {_format_literal(value)}", value.at)
        name = value.name.removeprefix(self.prefix)
        if value.name.startswith(self.prefix) and name in self.kinds:
            return name, self.kinds[name]
        if value.name.startswith(self.prefix) and name in self.unread:
            why = f"{value.name:.80} holds {self.unread[name]}, which filters do not read"
        else:
            why = f"there is no {value.name:.80}"
        raise FilterError(why + self._list_attributes(name), value.at)

    def _list_attributes(self, name: str) -> str:
        if not self.kinds and self.prefix == USER:
            return ": user attributes need features.user_attributes, and are not available in business rules"
        close = difflib.get_close_matches(name.split(".")[0], self.kinds, 1)
        meant = f"; did you mean {self.prefix}{close[0]:.80}?" if close else ";"
        there = ", ".join(f"{self.prefix}{name} ({kind})" for name, kind in self.kinds.items())
        if len(there) > LONGEST_LISTING:
            there = f"{there[:LONGEST_LISTING]}… ({len(self.kinds)} in all)"
        return f"{meant} there are: {there}"


def sample_user(kinds: Mapping[str, str]) -> User:
    """Return a user with a value of each kind, for checking expressions."""
    return tuple((name, kind, OF_USER[kind][1]) for name, kind in kinds.items())


def build_plan(node: Node, items: ColumnSource, user: User) -> Plan:
    """Plan a tree for this user; raises FilterError with the column, what was expected and what was received."""
    return _plan_node(node, items, ColumnSource.of_user(user), {name: value for name, _, value in user})


def _plan_node(node: Node, items: ColumnSource, user: ColumnSource, values: Mapping[str, Any]) -> Plan:
    if isinstance(node, Test):
        names = list(find_attributes(node))
        if names and all(one.name.startswith(USER) for one in names):
            return _plan_test(node, user)
        left, right = (_resolve_user(side, user, values) for side in (node.left, node.right))
        if any(isinstance(side, Literal) and side.value is None for side in (left, right)):
            return lambda: (np.zeros(1, bool), np.zeros(1, bool))
        return _plan_test(Test(left, node.op, right), items)
    if isinstance(node, Not):
        part = _plan_node(node.part, items, user, values)
        return lambda: part()[::-1]
    parts = [_plan_node(part, items, user, values) for part in node.parts]
    return lambda: _combine(node, [part() for part in parts])


def _resolve_user(side: Any, user: ColumnSource, values: Mapping[str, Any]) -> Any:
    """Replace a user attribute by its value."""
    if not isinstance(side, Attribute) or not side.name.startswith(USER):
        return side
    name, kind = user.resolve(side)
    return Literal(values[name], side.at, f"{side.name} ({kind})")


def _plan_test(test: Test, source: ColumnSource) -> Plan:
    left, op, right = test.left, test.op, test.right
    if isinstance(left, Literal) and isinstance(right, Attribute) and op != "in":
        left, op, right = right, MIRRORED.get(op, op), left
    if op == "in" and isinstance(right, Attribute):
        return _plan_membership(left, right, source)
    name, kind = source.resolve(left)
    if op == "null":
        return lambda: _test_null(source.column(name))
    if op == "flag":
        right, op = Literal(True, left.at), "=="
        if kind != FLAG:
            raise _type_error(left, kind, f"{source.prefix}{name} alone")
    if not isinstance(right, Literal):
        assert right is not None
        hint = f" (write {source.prefix}{name} is null)" if right.name in ("null", "None") else ""
        raise FilterError(f"expected a value, not another name; got {right.name:.80}{hint}", right.at)
    value = _convert_literal(left, kind, op, right)
    if op == "in":
        return lambda: _split_truth(source.column(name), source.column(name).is_among(value))
    return lambda: _split_truth(source.column(name), source.column(name).compare(op, value))


def _plan_membership(left: Value, right: Attribute, source: ColumnSource) -> Plan:
    name, kind = source.resolve(right)
    if kind != TEXTS:
        raise _type_error(right, kind, f"in {right.name}")
    if not isinstance(left, Literal) or not isinstance(left.value, str):
        got = left.name if isinstance(left, Attribute) else _format_literal(left)
        raise FilterError(f"expected a text in quotes before in; got {got}", left.at)
    return lambda: _split_truth(source.column(name), source.column(name).contains(left.value))


def _convert_literal(attribute: Any, kind: str, op: str, literal: Literal) -> Any:
    """Convert the literal to the column's type; raises FilterError if type or operator does not fit."""
    several = isinstance(literal.value, tuple)
    if several != (op == "in"):
        raise _type_error(attribute, kind, f"{op} {_format_literal(literal)}")
    if several:
        return tuple(_convert_value(attribute, kind, op, Literal(v, literal.at, literal.name)) for v in literal.value)
    return _convert_value(attribute, kind, op, literal)


def _convert_value(attribute: Any, kind: str, op: str, literal: Literal) -> Any:
    value = literal.value
    if kind == NUMBER and isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if kind == TEXT and isinstance(value, str):
        return value
    if kind == FLAG and isinstance(value, bool) and op in ("==", "!="):
        return value
    if kind == TIME and isinstance(value, str) and not literal.name:
        try:
            return parse_micros(value)
        except (ValueError, OverflowError):
            expected = "expected a date such as '2024-01-31', or with a time and zone '2024-01-31T12:00:00Z'"
            raise FilterError(f"{expected}; got {_format_literal(literal)}", literal.at) from None
    raise _type_error(attribute, kind, f"{op} {_format_literal(literal)}")


def _type_error(attribute: Any, kind: str, got: str) -> FilterError:
    shape = SHAPES[kind].format(attribute.name)
    return FilterError(f"{attribute.name} is a {kind}: expected {shape}; got {got}", attribute.at)


def _format_literal(literal: Literal) -> str:
    if literal.name:
        return literal.name
    if isinstance(literal.value, tuple):
        return "a list"
    return str(literal.value).lower() if isinstance(literal.value, bool) else f"{literal.value!r:.60}"


def _split_truth(column: Column, true: np.ndarray) -> Truth:
    if column.known is None:
        return true, ~true
    return true & column.known, ~true & column.known


def _test_null(column: Column) -> Truth:
    known = np.ones(len(column.values), bool) if column.known is None else column.known
    return ~known, known


def _combine(node: Junction, parts: list[Truth]) -> Truth:
    """`and` is true if all parts are true and false if any is false; `or` the reverse."""
    true, false = (np.logical_and, np.logical_or) if node.every else (np.logical_or, np.logical_and)
    return reduce(true, [part[0] for part in parts]), reduce(false, [part[1] for part in parts])
