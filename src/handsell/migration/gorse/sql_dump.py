"""Read the tables of Gorse from an SQL dump: mysqldump, pg_dump (COPY or INSERT) and SQLite's .dump."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson

from handsell.data.readers.formats.file_access import TableFile
from handsell.migration.source_files import LONGEST_LINE, read_lines
from handsell.migration.tally import SourcePlace, Tally

TABLES = ("users", "items", "feedback")
DEFAULT_COLUMNS = {  # where the dump has no CREATE TABLE
    "users": ("user_id", "labels", "comment"),
    "items": ("item_id", "is_hidden", "categories", "time_stamp", "labels", "comment"),
    "feedback": ("feedback_type", "user_id", "item_id", "value", "time_stamp", "updated", "comment"),
}
NAME = r"[`\"\[]?(?:\w+[`\"\]]?\.[`\"\[]?)?(?P<table>\w+)[`\"\]]?"
CREATE = re.compile(rf"CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{NAME}\s*\((?P<rest>.*)", re.IGNORECASE)
INSERT = re.compile(rf"INSERT\s+(?:IGNORE\s+)?INTO\s+{NAME}\s*(?:\((?P<columns>[^)]*)\))?\s*VALUES\s*", re.IGNORECASE)
COPY = re.compile(rf"COPY\s+{NAME}\s*\((?P<columns>[^)]*)\)\s+FROM\s+stdin", re.IGNORECASE)
NO_COLUMN = re.compile(r"(?:PRIMARY|KEY|UNIQUE|CONSTRAINT|INDEX|FOREIGN|CHECK|FULLTEXT)\b", re.IGNORECASE)
ENDS = r"(?P<bare>[^,()'\s][^,()']*?))\s*(?P<end>[,)])"
VALUE = re.compile(rf"\s*(?:'(?P<text>(?:[^']|'')*)'|{ENDS}", re.DOTALL)
MYSQL_VALUE = re.compile(rf"\s*(?:(?:_binary\s*)?'(?P<text>(?:[^'\\]|\\.|'')*)'|{ENDS}", re.DOTALL)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "f": "\f", "v": "\v", "Z": "\x1a"}
LONGEST_START = 4_096  # characters before the values of a statement
JSON_COLUMNS = ("labels", "categories", "subscribe")


def looks_like_sql(start: bytes) -> bool:
    """Whether a file begins like an SQL dump."""
    text = start.decode("utf-8", "replace")
    return bool(re.search(r"^\s*(?:CREATE TABLE|INSERT (?:IGNORE )?INTO|COPY \S+ \(|PRAGMA |BEGIN)", text, re.I | re.M))


def read_sql(file: TableFile, tally: Tally) -> Iterator[tuple[dict[str, Any], SourcePlace]]:
    """Yield the rows of Gorse's tables; rows of other tables are counted as skipped."""
    columns: dict[str, tuple[str, ...]] = {}
    creating: str | None = None  # the table whose columns follow, one on each line
    copying: tuple[str, tuple[str, ...]] | None = None
    parts: list[bytes] = []  # of a statement that has several lines
    for line, place in read_lines(file, tally):
        if copying is not None:
            if line == b"\\.":
                copying = None
            else:
                yield from _build(copying[0], copying[1], _split_copied(line.decode("utf-8", "replace")), place, tally)
            continue
        if parts or INSERT.match(line[:LONGEST_START].decode("utf-8", "replace")):
            parts.append(line)
            if (text := _close(parts)) is not None:
                parts = []
                yield from _read_insert(text, columns, place, tally)
            continue
        text = line.decode("utf-8", "replace")
        if found := COPY.match(text):
            copying = found["table"], _split_names(found["columns"])
        elif found := CREATE.match(text):
            table = _name_table(found["table"])
            columns[table] = tuple(_list_columns(found["rest"]))
            creating = table if not text.rstrip().endswith(";") else None
        elif creating is not None:
            columns[creating] += tuple(_list_columns(text))
            creating = None if text.startswith(")") else creating


def _name_table(table: str) -> str:
    """Return Gorse's name of a table, which may have a prefix."""
    return next((name for name in TABLES if table.casefold().endswith(name)), "")


def _close(parts: list[bytes]) -> str | None:
    """Return a statement that has ended; None while it goes on, inside quotes or with more rows."""
    is_long = len(parts) > 1 and sum(map(len, parts)) > LONGEST_LINE
    if not parts[-1].rstrip().endswith(b";") and not is_long:
        return None
    text = b"\n".join(parts).decode("utf-8", "replace")
    plain = re.sub(r"\\.", "", text, flags=re.DOTALL) if _is_mysql(text) else text
    return text if plain.count("'") % 2 == 0 or is_long else None


def _is_mysql(statement: str) -> bool:
    """Whether a backslash in a text escapes, which the quotes around names show."""
    found = INSERT.match(statement)
    return found is not None and "`" in found[0]


def _read_insert(
    text: str, columns: dict[str, tuple[str, ...]], place: SourcePlace, tally: Tally
) -> Iterator[tuple[dict[str, Any], SourcePlace]]:
    found = INSERT.match(text)
    assert found is not None
    table = found["table"]
    given = _split_names(found["columns"]) if found["columns"] else columns.get(_name_table(table), ())
    for values in _split_values(text, found.end(), _is_mysql(text)):
        yield from _build(table, given, values, place, tally)


def _list_columns(text: str) -> Iterator[str]:
    """Yield the names of the columns that a part of CREATE TABLE describes, up to its last parenthesis."""
    depth, part = 0, ""
    for sign in text + ",":
        depth += (sign == "(") - (sign == ")")
        if depth >= 0 and (sign != "," or depth):
            part += sign
            continue
        part = part.strip()
        if part and not NO_COLUMN.match(part) and (name := re.match(r"[`\"\[]?(\w+)[`\"\]]?\s+\S", part)):
            yield name[1]
        part = ""
        if depth < 0:
            return


def _split_names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().strip('`"[]') for name in text.split(","))


def _split_values(text: str, at: int, is_mysql: bool) -> Iterator[list[Any] | None]:
    """Yield the values of each row in parentheses; None for what cannot be parsed, which ends the statement."""
    while at < len(text):
        start = text.find("(", at)
        if start < 0:
            return
        row: list[Any] = []
        at = start + 1
        while found := (MYSQL_VALUE if is_mysql else VALUE).match(text, at):
            row.append(_unquote(found["text"], is_mysql) if found["text"] is not None else _read_bare(found["bare"]))
            at = found.end()
            if found["end"] == ")":
                break
        else:
            yield None
            return
        yield row


def _unquote(text: str, is_mysql: bool) -> str:
    if not is_mysql:
        return text.replace("''", "'")
    return re.sub(r"\\(.)|''", lambda m: ESCAPED.get(m[1], m[1]) if m[1] is not None else "'", text, flags=re.DOTALL)


def _read_bare(text: str) -> Any:
    plain = text.strip()
    if plain.upper() == "NULL":
        return None
    return {"TRUE": True, "FALSE": False}.get(plain.upper(), plain)


def _split_copied(line: str) -> list[Any]:
    return [None if value == "\\N" else _unescape(value) for value in line.split("\t")]


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda m: ESCAPED.get(m[1], m[1]), value)


def _build(
    table: str, columns: tuple[str, ...], values: list[Any] | None, place: SourcePlace, tally: Tally
) -> Iterator[tuple[dict[str, Any], SourcePlace]]:
    name = _name_table(table)
    if not name:
        tally.read["other"] += 1
        tally.skip("other", f"a row of table {table}, which is none of {', '.join(TABLES)}", place)
        return
    names = columns or DEFAULT_COLUMNS[name]
    if values is None or len(values) != len(names):
        kind = "events" if name == "feedback" else name
        tally.read[kind] += 1  # type: ignore[index]
        tally.skip(kind, "values that do not fit the columns of the table", place)  # type: ignore[arg-type]
        return
    record = dict(zip(names, values, strict=True))
    for column in JSON_COLUMNS:
        if isinstance(record.get(column), str):
            record[column] = _read_json(record[column])
    yield record, place


def _read_json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text or None
