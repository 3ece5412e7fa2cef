"""The grammar of filter expressions, and the tree that one is parsed to. docs/filters.md is its page.

Lark's LALR parser does the work: linear in the length, without recursion, and nothing is ever evaluated. What an
attribute is and which comparison it allows, `filters.py` decides.
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

DEEPEST = 32  # parentheses and `not` within one another
LONGEST_LIST = 100
LARGEST = 2**63  # whole numbers are smaller

GRAMMAR = r"""
?some: every ("or" every)*
?every: one ("and" one)*
?one: "not" one -> negation | test | "(" some ")" -> nested
?test: value COMPARE value -> comparison
    | value "in" value -> membership
    | value "not" "in" value -> no_membership
    | value "is" "null" -> null
    | value "is" "not" "null" -> no_null
    | value -> flag
?value: NAME -> attribute | literal | "[" literal ("," literal)* "]" -> several
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
    value: Any  # bool, int, float, str, or a tuple of those; None: not known
    at: int
    name: str = ""  # of the user's attribute that it is the value of


Value = Attribute | Literal


@dataclass(frozen=True, slots=True)
class Test:
    """One test; `op` is == != < <= > >= in, or, without a right side, `null` or `flag` (a value alone)."""

    left: Value
    op: str
    right: Value | None = None


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


@dataclass(frozen=True, slots=True)
class Junction:
    """All of `parts`, or with `every` false any of them."""

    every: bool
    parts: tuple[Node, ...]


Node = Test | Not | Junction


def attributes(node: Node) -> Iterator[Attribute]:
    """Those that the tree reads, from left to right."""
    if isinstance(node, Test):
        yield from (side for side in (node.left, node.right) if isinstance(side, Attribute))
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from attributes(part)


def parse(expression: str) -> Node:
    """The tree of an expression; raises FilterError with the column, what was expected and what was received."""
    if len(expression) > LONGEST_FILTER:
        raise FilterError(f"expected at most {LONGEST_FILTER} characters; got {len(expression)}")
    try:
        return _parser().parse(expression)[0]  # type: ignore[return-value, index]
    except UnexpectedInput as error:
        raise _refusal(error, expression) from None


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, start="some", parser="lalr", transformer=_Tree(), maybe_placeholders=False)


Deep = tuple[Node, int]  # a node and how deep parentheses and `not` go in it


class _Tree(Transformer):
    """Builds the tree while the text is parsed."""

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

    def several(self, parts: list[Literal]) -> Literal:
        if len(parts) > LONGEST_LIST:
            raise FilterError(f"expected at most {LONGEST_LIST} values in a list; got {len(parts)}", parts[0].at)
        return Literal(tuple(part.value for part in parts), parts[0].at)

    def comparison(self, parts: list[Any]) -> Deep:
        return Test(parts[0], str(parts[1]), parts[2]), 0

    def membership(self, parts: list[Value]) -> Deep:
        return Test(parts[0], "in", parts[1]), 0

    def no_membership(self, parts: list[Value]) -> Deep:
        return Not(Test(parts[0], "in", parts[1])), 0

    def null(self, parts: list[Value]) -> Deep:
        return Test(parts[0], "null"), 0

    def no_null(self, parts: list[Value]) -> Deep:
        return Not(Test(parts[0], "null")), 0

    def flag(self, parts: list[Value]) -> Deep:
        return Test(parts[0], "flag"), 0

    def negation(self, parts: list[Deep]) -> Deep:
        return Not(parts[0][0]), _deeper(parts[0][1])

    def nested(self, parts: list[Deep]) -> Deep:
        return parts[0][0], _deeper(parts[0][1])

    def every(self, parts: list[Deep]) -> Deep:
        return _junction(True, parts)

    def some(self, parts: list[Deep]) -> Deep:
        return _junction(False, parts)


def _junction(every: bool, parts: list[Deep]) -> Deep:
    return Junction(every, tuple(node for node, _ in parts)), max(depth for _, depth in parts)


def _deeper(depth: int) -> int:
    if depth >= DEEPEST:
        raise FilterError(f"expected at most {DEEPEST} parentheses and `not` within one another; got more")
    return depth + 1


def _at(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _refusal(error: UnexpectedInput, expression: str) -> FilterError:
    """Lark's error in our words."""
    start = error.pos_in_stream or 0
    if isinstance(error, UnexpectedToken):
        start = len(expression) if error.token.type == "$END" else start
        got, wanted = str(error.token), error.accepts or error.expected
    else:
        got = expression[start : start + 1]
        wanted = error.allowed if isinstance(error, UnexpectedCharacters) else set()
    if got and got in "'\"":
        escapes = f"\\{got} and \\\\"
        return FilterError(f"expected a text that ends with {got}, and in it no \\ but {escapes}", start + 1)
    wanted = set(wanted or ()) - (set() if "(" in expression[:start] else {"RPAR"})
    words = [word for name, word in WORDS.items() if name in wanted]
    expected = " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
    hint = f" ({HINTS[got]})" if got in HINTS else ""
    return FilterError(f"expected {expected}; got {f'{got!r:.40}' if got else 'the end'}{hint}", start + 1)
