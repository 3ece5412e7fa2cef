"""Files of ids: a line is white-space separated ids, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from handsell.core.errors import DataError

FOREIGN = re.compile(r"[,;|\"'{}\[\]]")  # signs of another format: CSV, JSON


def read_rows(path: Path, expected: str, at_least: int) -> list[list[str]]:
    """The ids of every line, which has `at_least` of them; blank lines are left out.

    Raises DataError with the file, the line's number, what was expected and what was received.
    """
    rows = []
    for number, line in enumerate(_text(path, expected).splitlines(), start=1):
        row = line.split()
        if not row:
            continue
        if FOREIGN.search(line):
            raise DataError(f"{path}, line {number}: expected `{expected}` separated by spaces, found {_start(line)}")
        if len(row) < at_least:
            raise DataError(f"{path}, line {number}: expected `{expected}`, found only {_start(line)}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} is empty: expected lines of `{expected}`")
    return rows


def read_users(path: Path) -> dict[str, list[str]]:
    """User → items, from lines of `user item item …`; a user without items is allowed, one that comes twice is not."""
    users: dict[str, list[str]] = {}
    for row in read_rows(path, "user item item …", at_least=1):
        if row[0] in users:
            raise DataError(f"{path}: user {row[0]} has two lines; expected one line per user with all of their items")
        users[row[0]] = row[1:]
    return users


def read_validation(path: Path) -> dict[str, list[str]]:
    """User → items, from lines of `user item …` or from JSON: an object, or a list whose place u is user u's items."""
    if not _text(path, "user item item …").lstrip().startswith(("[", "{")):
        return read_users(path)
    found = read_json(path)
    lists = dict(enumerate(found)) if isinstance(found, list) else found
    for user, items in lists.items():
        if not isinstance(items, list):
            raise DataError(f"{path}: expected a list of items for each user, found {_start(repr(items))} for {user}")
    return {str(user): [str(item) for item in items] for user, items in lists.items()}


def read_attributes(path: Path) -> dict[str, list[str]]:
    """Item → attributes, from a JSON object of lists."""
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(value, list) for value in found.values()):
        raise DataError(f"{path}: expected a JSON object of item → list of attributes; correct it or leave it out")
    return {item: [str(attribute) for attribute in listed] for item, listed in found.items()}


def read_json(path: Path):
    try:
        return json.loads(_text(path, "JSON"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not readable JSON ({error.msg}); correct it") from None


def in_order(ids: set[str]) -> list[str]:
    """Ids sorted, as numbers where all are numbers: an item's number depends on the set, not on who touched it."""
    return sorted(ids, key=int) if all(map(str.isdecimal, ids)) else sorted(ids)


def fingerprint(paths: Sequence[Path]) -> str:
    """16 hexadecimal digits over the contents of the files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _text(path: Path, expected: str) -> str:
    if not path.is_file():
        raise DataError(f"{path} does not exist: expected a file with lines of `{expected}`")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text ({error}): expected lines of `{expected}`") from None


def _start(line: str) -> str:
    return repr(line if len(line) <= 40 else line[:40] + "…")
