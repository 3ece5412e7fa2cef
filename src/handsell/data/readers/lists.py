"""Convert creators and tags that are written as text to lists.

Text in brackets is a list: JSON (`["a", "b"]`), Python (`['a', 'b']`), NumPy (`['a' 'b']`), PostgreSQL (`{a,"b c"}`).
Other text is split at the separator of the column.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from handsell.data.readers.location import ColumnLocation
from handsell.data.schemas import STRINGS

SEPARATORS = {"tags": ("|", ";", ","), "creators": ("|", ";")}
BRACKETS = re.compile(r"^\s*(\[.*\]|\{.*\}|\(\s*['\"].*\))\s*$", re.DOTALL)
CUT = re.compile(r"^\s*[\[{]\s*['\"]")  # the beginning of a list
QUOTED = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
QUOTED_LIST = re.compile(rf"^\s*(?:(?:{QUOTED})\s*,?\s*)*$", re.DOTALL)
WORD = re.compile(rf"\s*({QUOTED}|[^,]*)\s*(?:,|$)", re.DOTALL)
NOTHING = ("none", "null", "nan")


def choose_separator(texts: Iterable[pa.Array], canonical: str) -> str:
    """Return the first usual separator that is in the values of a column, outside lists in brackets."""
    separators = SEPARATORS.get(canonical, ("|",))
    found = set()
    for text in texts:
        plain = text.filter(pc.invert(pc.match_substring_regex(pc.fill_null(text, ""), r"^\s*[\[{(].*[\]})]\s*$")))
        found |= {s for s in separators if pc.any(pc.match_substring(plain, s)).as_py()}
    return next((s for s in separators if s in found), "|")


def split_text(text: pa.Array, separator: str, location: ColumnLocation) -> pa.Array:
    """Convert text to lists of text without empty entries."""
    rows = []
    for row, value in enumerate(text.to_pylist()):
        value = value or ""
        listed = _parse_brackets(value.strip(), row, location) if BRACKETS.match(value) else None
        if listed is None:
            if CUT.match(value) and not BRACKETS.match(value):
                raise location.error("a list with a closing bracket", _shorten(value), row)
            listed = [word for part in value.split(separator) if (word := part.strip())]
        rows.append(listed)
    return pa.array(rows, STRINGS)


def _parse_brackets(value: str, row: int, location: ColumnLocation) -> list[str] | None:
    """Return the entries of text in brackets; None if it is not a list."""
    inner = value[1:-1]
    try:
        found = json.loads(value)
    except ValueError:
        plain = re.sub(QUOTED, "", inner, flags=re.DOTALL)
        if re.search(r"[\[\]{}]", plain) and ":" not in plain:
            return None
        if QUOTED_LIST.match(inner):
            found = [_unquote(word) for word in re.findall(QUOTED, inner, re.DOTALL)]
        else:
            found = [{} if "{" in word else _unquote(word) for word in WORD.findall(inner) if word.strip()]
    if not isinstance(found, list) or any(isinstance(entry, (list, dict)) for entry in found):
        raise location.error('a list of text, such as ["a", "b"] or a|b', _shorten(value), row)
    texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in found if entry is not None]
    return [word for text in texts if (word := text.strip())]


def _unquote(word: str) -> str | None:
    word = word.strip()
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        try:
            return str(ast.literal_eval(word))
        except (ValueError, SyntaxError):
            return word[1:-1]
    return None if word.casefold() in NOTHING else word


def _shorten(value: str) -> str:
    return repr(value if len(value) <= 60 else f"{value[:60]}…")
