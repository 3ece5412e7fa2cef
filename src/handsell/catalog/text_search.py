"""Full-text search over the items of one bundle, in an SQLite file that holds words, not texts.

A word of the query matches the beginning of a word of the item, whatever its case and accents. Chinese, Japanese and
Korean characters are words of their own. Memory is bounded: rows are read and written in parts.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import pyarrow as pa
from pyarrow import types as t

from handsell.catalog.live_snapshot import LiveSnapshot
from handsell.catalog.snapshot import Snapshot
from handsell.core.errors import DataError

COLUMNS = ("item_id", "title", "creators", "tags", "text")  # the others go to the last column
WEIGHTS = (8.0, 10.0, 5.0, 3.0, 1.0, 1.0)  # of a match in each of them, and in any other column
AT_ONCE = 5_000  # rows read and written at a time
LONGEST_QUERY = 20  # words
BUSY_MS = 5_000
WITHOUT_SPACES = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])")
NUMBER = "rowid"  # of FTS5: the item's number

_CREATE = (
    f"CREATE VIRTUAL TABLE items USING fts5({', '.join(COLUMNS)}, other, content='', contentless_delete=1, "
    "prefix='2 3', tokenize='unicode61 remove_diacritics 2')"
)
_INSERT = f"INSERT INTO items({NUMBER}, {', '.join(COLUMNS)}, other) VALUES ({', '.join('?' * (len(COLUMNS) + 2))})"
_SEARCH = (
    f"SELECT {NUMBER} FROM items WHERE items MATCH ? "
    f"ORDER BY bm25(items, {', '.join(map(str, WEIGHTS))}), {NUMBER} LIMIT ?"
)


class TextIndex:
    """The words of a bundle's items by number; `follow` brings live catalog changes. Threads may share it."""

    def __init__(self, path: Path, snapshot: Snapshot):
        """Open the index of the bundle's snapshot, which is built first if there is no usable file at the path.

        Raises DataError if the file cannot be written.
        """
        self._path, self._lock = path, threading.Lock()
        self._revision = -1  # the batch of live changes that has been read
        try:
            self._connection = _open(path, snapshot.base)
            self.follow(snapshot)
        except (OSError, apsw.Error) as error:
            raise DataError(
                f"cannot store the words of the catalog in {path} ({error}): free or allow space"
            ) from error

    def follow(self, snapshot: Snapshot) -> None:
        """Read the items that have changed since the last call."""
        if not isinstance(snapshot, LiveSnapshot) or not len(snapshot.revision):
            return
        with self._lock:
            fresh = (snapshot.revision > self._revision).nonzero()[0]
            deleted = set(snapshot.deleted.tolist())
            for start in range(0, len(fresh), AT_ONCE):
                part = fresh[start : start + AT_ONCE]
                numbers = snapshot.changed[part].tolist()
                rows = zip(numbers, _read_rows(snapshot.changed_metadata.take(pa.array(part))), strict=True)
                with self._connection:
                    self._connection.executemany(f"DELETE FROM items WHERE {NUMBER} = ?", [(n,) for n in numbers])
                    kept = [(number, *row) for number, row in rows if number not in deleted]
                    self._connection.executemany(_INSERT, kept)
            self._revision = int(snapshot.revision.max())

    def search(self, text: str, most: int) -> list[int]:
        """Return the numbers of at most `most` items that have all words of a text, the best match first.

        Raises DataError for a damaged file.
        """
        query = build_query(text)
        if not query:
            return []
        try:
            with self._lock:
                return [row[0] for row in self._connection.execute(_SEARCH, (query, most))]
        except apsw.Error as error:
            raise DataError(f"{self._path} cannot be searched ({error}): remove it, it is built again") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def build_query(text: str) -> str:
    """Return a query of FTS5: every word must begin a word of the item. Empty for a text without letters and digits."""
    clean = text.encode("utf-8", "replace").decode().replace("\0", " ")
    words = [word for word in clean.split() if any(map(str.isalnum, word))]
    quoted = [_separate(word).replace('"', '""') for word in words[:LONGEST_QUERY]]
    return " AND ".join(f'("{word}" OR "{word}" *)' for word in quoted)  # a whole word counts more than its beginning


def _open(path: Path, snapshot: Snapshot) -> apsw.Connection:
    if path.exists():
        connection = _connect(path)
        try:
            connection.execute("SELECT count(*) FROM items WHERE items MATCH 'a'").fetchall()
            return connection
        except apsw.Error:  # damaged, or no index at all
            connection.close()
            path.unlink()
    _build(path, snapshot)
    return _connect(path)


def _build(path: Path, snapshot: Snapshot) -> None:
    """Write the file under another name and rename it last, so that a file at the path is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    connection = _connect(fresh)
    try:
        connection.execute("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")  # an unfinished file is never used
        connection.execute(_CREATE)
        for start in range(0, len(snapshot.metadata), AT_ONCE):
            rows = enumerate(_read_rows(snapshot.metadata.slice(start, AT_ONCE)), start)
            with connection:
                connection.executemany(_INSERT, ((number, *row) for number, row in rows))
    finally:
        connection.close()
    fresh.replace(path)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_MS)
    return connection


def _read_rows(metadata: pa.Table) -> Iterator[tuple[str, ...]]:
    """Yield the texts of COLUMNS of each row, and those of all other columns together."""
    others = [f.name for f in metadata.schema if f.name not in COLUMNS and _has_text(f.type)]
    columns: list[Sequence[Any]] = [
        _list_values(metadata[name]) if name in metadata.column_names else [None] * len(metadata)
        for name in (*COLUMNS, *others)
    ]
    for row in zip(*columns, strict=True):
        texts = [_separate(_join(value)) for value in row]
        yield (*texts[: len(COLUMNS)], " ".join(texts[len(COLUMNS) :]))


def _has_text(kind: pa.DataType) -> bool:
    if t.is_dictionary(kind) or t.is_list(kind) or t.is_large_list(kind):
        kind = kind.value_type
    return t.is_string(kind) or t.is_large_string(kind)


def _list_values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # text that is not UTF-8
        is_list = t.is_list(column.type) or t.is_large_list(column.type)
        return column.cast(pa.large_list(pa.large_binary()) if is_list else pa.large_binary()).to_pylist()


def _join(value: str | bytes | Sequence[str | bytes | None] | None) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "replace")
    return " ".join(_join(one) for one in value)


def _separate(text: str) -> str:
    """Return a text with spaces around characters of scripts that have none between words."""
    return WITHOUT_SPACES.sub(r" \1 ", text).strip()
