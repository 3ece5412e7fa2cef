"""Files of ids separated by white space."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from handsell.core.errors import DataError

FOREIGN = re.compile(r"[,;|\"'{}\[\]]")  # characters of other formats: CSV, JSON


def read_rows(path: Path, expected: str, at_least: int) -> list[list[str]]:
    """Read the ids of every line; blank lines are skipped.

    Raises DataError, with file and line number, for a line with fewer than `at_least` ids or in another format.
    """
    rows = []
    for number, line in enumerate(_text(path, expected).splitlines(), start=1):
        row = line.split()
        if not row:
            continue
        if FOREIGN.search(line):
            raise DataError(f"{path}, line {number}: expected `{expected}` separated by spaces, got {_start(line)}")
        if len(row) < at_least:
            raise DataError(f"{path}, line {number}: expected `{expected}`, got only {_start(line)}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} is empty: expected lines of `{expected}`")
    return rows


def read_users(path: Path) -> dict[str, list[str]]:
    """Read user → items from lines of `user item item …`; raises DataError if a user has two lines."""
    users: dict[str, list[str]] = {}
    for row in read_rows(path, "user item item …", at_least=1):
        if row[0] in users:
            raise DataError(f"{path}: user {row[0]} has two lines; expected one line per user with all of their items")
        users[row[0]] = row[1:]
    return users


def read_validation(path: Path) -> dict[str, list[str]]:
    """Read user → items from lines of `user item …` or from JSON: an object, or a list in the order of user numbers."""
    if not _text(path, "user item item …").lstrip().startswith(("[", "{")):
        return read_users(path)
    found = read_json(path)
    lists = dict(enumerate(found)) if isinstance(found, list) else found
    for user, items in lists.items():
        if not isinstance(items, list):
            raise DataError(f"{path}: expected a list of items for each user, got {_start(repr(items))} for {user}")
    return {str(user): [str(item) for item in items] for user, items in lists.items()}


def read_attributes(path: Path) -> dict[str, list[str]]:
    """Read item → attributes from a JSON object of lists."""
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(value, list) for value in found.values()):
        raise DataError(f"{path}: expected a JSON object of item → list of attributes; correct it or leave it out")
    return {item: [str(attribute) for attribute in listed] for item, listed in found.items()}


def read_json(path: Path):
    try:
        return json.loads(_text(path, "JSON"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: invalid JSON ({error.msg}); correct it") from None


def sort_ids(ids: set[str]) -> list[str]:
    """Sort ids, as numbers if all are numbers, so that an item's number depends on the set of items alone."""
    return sorted(ids, key=int) if all(map(str.isdecimal, ids)) else sorted(ids)


def compute_fingerprint(paths: Sequence[Path]) -> str:
    """Return a hash of the contents of the files, 16 hexadecimal digits."""
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
