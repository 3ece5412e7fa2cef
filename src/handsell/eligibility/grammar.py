"""The grammar of filter expressions and the tree that they are parsed to; documented in docs/filters.md.

Lark's LALR parser takes time linear in the length, does not recurse and evaluates nothing. `plans.py` checks attributes
and types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from handsell.core.errors import FilterError
from handsell.eligibility.config import LONGEST_FILTER

DEEPEST = 32  # nested parentheses and `not`
LONGEST_LIST = 100
LARGEST = 2**63  # bound of the absolute value of whole numbers

GRAMMAR = r"""
?disjunction: conjunction ("or" conjunction)*
?conjunction: factor ("and" factor)*
?factor: "not" factor -> negation | test | "(" disjunction ")" -> nested
?test: value COMPARE value -> comparison
    | value "in" value -> membership
    | value "not" "in" value -> no_membership
    | value "is" "null" -> null
    | value "is" "not" "null" -> no_null
    | value -> flag
?value: NAME -> attribute | literal | "[" literal ("," literal)* "]" -> list_of
?literal: NUMBER -> number | TEXT -> text | TRUE -> true | FALSE -> false
COMPARE: /==|!=|<=|>=|<|>/
NUMBER: /-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?/
TEXT: /'([^'\\]|\\['"\\])*'|"([^"\\]|\\['"\\])*"/
TRUE.2: /[Tt]rue\b/
FALSE.2: /[Ff]alse\b/
NAME: /[^\W\d]\w*(\.\w+)*/
%ignore /\s+/
"""

WORDS = {
    "NAME": "item.<attribute>", "NUMBER": "a number", "TEXT": "a text in quotes", "TRUE": "true", "FALSE": "false",
    "LSQB": "a list", "LPAR": "'('", "COMPARE": "a comparison (== != < <= > >=)", "IN": "'in'", "NOT": "'not'",
    "IS": "'is null'", "NULL": "'null'", "AND": "'and'", "OR": "'or'", "COMMA": "','", "RSQB": "']'", "RPAR": "')'",
    "$END": "the end",
}  # fmt: skip
HINTS = {
    "=": "for equality write ==", "(": "there are no functions", "AND": "write and", "OR": "write or",
    "NOT": "write not", "&": "write and", "|": "write or", "!": "write not",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str  # as written, with `item.` or `user.`
    at: int  # 1-based column in the expression


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any  # bool, int, float, str, or a tuple of those; None: null
    at: int
    name: str = ""  # of the user attribute with this value


Value = Attribute | Literal


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison; `op` is == != < <= > >= in, or without a right side `null` or `flag` (a value alone)."""

    left: Value
    op: str
    right: Value | None = None


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


@dataclass(frozen=True, slots=True)
class Junction:
    """All of `parts`, or any of them if `every` is False."""

    every: bool
    parts: tuple[Node, ...]


Node = Test | Not | Junction


def find_attributes(node: Node) -> Iterator[Attribute]:
    """Yield the attributes in a tree, from left to right."""
    if isinstance(node, Test):
        yield from (side for side in (node.left, node.right) if isinstance(side, Attribute))
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from find_attributes(part)


def parse(expression: str) -> Node:
    """Parse an expression; raises FilterError with the column, what was expected and what was received."""
    if len(expression) > LONGEST_FILTER:
        raise FilterError(f"expected at most {LONGEST_FILTER} characters; got {len(expression)}")
    try:
        return _parser().parse(expression)[0]  # type: ignore[return-value, index]
    except UnexpectedInput as error:
        raise _to_filter_error(error, expression) from None


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, start="disjunction", parser="lalr", transformer=_Tree(), maybe_placeholders=False)


NodeAndDepth = tuple[Node, int]  # depth of nested parentheses and `not`


class _Tree(Transformer):
    """Build the tree while the text is parsed; methods are named after the grammar's rules."""

    def attribute(self, parts: list[Token]) -> Attribute:
        return Attribute(str(parts[0]), _at(parts[0]))

    def number(self, parts: list[Token]) -> Literal:
        text = str(parts[0])
        value = int(text) if text.lstrip("-").isdigit() else float(text)
        if abs(value) >= LARGEST if isinstance(value, int) else not math.isfinite(value):
            raise FilterError(f"expected a number of at most 64 bits; got {text:.40}", _at(parts[0]))
        return Literal(value, _at(parts[0]))

    def text(self, parts: list[Token]) -> Literal:
        return Literal(re.sub(r"\\(.)", r"\1", parts[0][1:-1]), _at(parts[0]))

    def true(self, parts: list[Token]) -> Literal:
        return Literal(True, _at(parts[0]))

    def false(self, parts: list[Token]) -> Literal:
        return Literal(False, _at(parts[0]))

    def list_of(self, parts: list[Literal]) -> Literal:
        if len(parts) > LONGEST_LIST:
            raise FilterError(f"expected at most {LONGEST_LIST} values in a list; got {len(parts)}", parts[0].at)
        return Literal(tuple(part.value for part in parts), parts[0].at)

    def comparison(self, parts: list[Any]) -> NodeAndDepth:
        return Test(parts[0], str(parts[1]), parts[2]), 0

    def membership(self, parts: list[Value]) -> NodeAndDepth:
        return Test(parts[0], "in", parts[1]), 0

    def no_membership(self, parts: list[Value]) -> NodeAndDepth:
        return Not(Test(parts[0], "in", parts[1])), 0

    def null(self, parts: list[Value]) -> NodeAndDepth:
        return Test(parts[0], "null"), 0

    def no_null(self, parts: list[Value]) -> NodeAndDepth:
        return Not(Test(parts[0], "null")), 0

    def flag(self, parts: list[Value]) -> NodeAndDepth:
        return Test(parts[0], "flag"), 0

    def negation(self, parts: list[NodeAndDepth]) -> NodeAndDepth:
        return Not(parts[0][0]), _increase_depth(parts[0][1])

    def nested(self, parts: list[NodeAndDepth]) -> NodeAndDepth:
        return parts[0][0], _increase_depth(parts[0][1])

    def conjunction(self, parts: list[NodeAndDepth]) -> NodeAndDepth:
        return _junction(True, parts)

    def disjunction(self, parts: list[NodeAndDepth]) -> NodeAndDepth:
        return _junction(False, parts)


def _junction(every: bool, parts: list[NodeAndDepth]) -> NodeAndDepth:
    return Junction(every, tuple(node for node, _ in parts)), max(depth for _, depth in parts)


def _increase_depth(depth: int) -> int:
    if depth >= DEEPEST:
        raise FilterError(f"expected at most {DEEPEST} nested parentheses and `not`; got more")
    return depth + 1


def _at(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _to_filter_error(error: UnexpectedInput, expression: str) -> FilterError:
    """Convert an error of Lark."""
    start = error.pos_in_stream or 0
    if isinstance(error, UnexpectedToken):
        start = len(expression) if error.token.type == "$END" else start
        got, wanted = str(error.token), error.accepts or error.expected
    else:
        got = expression[start : start + 1]
        wanted = error.allowed if isinstance(error, UnexpectedCharacters) else set()
    if got and got in "'\"":
        escapes = f"\\{got} and \\\\"
        return FilterError(f"expected a text that ends with {got}, with no backslashes except in {escapes}", start + 1)
    wanted = set(wanted or ()) - (set() if "(" in expression[:start] else {"RPAR"})
    words = [word for name, word in WORDS.items() if name in wanted]
    expected = " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
    hint = f" ({HINTS[got]})" if got in HINTS else ""
    return FilterError(f"expected {expected}; got {f'{got!r:.40}' if got else 'the end'}{hint}", start + 1)
