"""Read and fill the tables of an event store in a SQLite file; copy other SQLite files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

import apsw

from handsell.core.errors import HandsellError
from handsell.events.store.interface import EventStoreError
from handsell.events.store.schema import HEAD, READ_REVISION
from handsell.events.store.sqlite_file import build_damage_error, connect_to_write, explain_failure
from handsell.events.store.sqlite_reader import open_to_read
from handsell.events.store.sqlite_upgrade import prepare
from handsell.events.store.sqlite_writer import open_to_write
from handsell.maintenance.store_tables import ROWS, ColumnKind, StoreColumn

KINDS: dict[str, ColumnKind] = {
    "INTEGER": "int", "BIGINT": "int", "TEXT": "text", "DOUBLE": "float", "REAL": "float", "BLOB": "bytes",
}  # fmt: skip
WAIT_S = 10.0


class SqliteSnapshot:
    """One read transaction: the writer goes on, and its later commits are not seen."""

    engine = "sqlite"

    def __init__(self, path: Path):
        self.path = path
        with _explain(path):
            self._db = open_to_read(path)
            self._db.execute("BEGIN")
            self._db.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # the transaction begins with a read

    def check(self) -> None:
        """Raise EventStoreError if the file is damaged: pages, or indexes that differ from their tables."""
        with _explain(self.path):
            found = str(self._db.execute("PRAGMA integrity_check(1)").fetchall()[0][0])
        if found != "ok":
            raise build_damage_error(self.path, " ".join(found.split()))

    def read_revision(self) -> str:
        with _explain(self.path):
            return str(self._db.execute(READ_REVISION).fetchall()[0][0])

    def list_columns(self, table: str) -> list[StoreColumn]:
        with _explain(self.path):
            return _list_columns(self._db, table)

    def read_rows(self, table: str, columns: Sequence[StoreColumn]) -> Iterator[list[tuple]]:
        with _explain(self.path):
            cursor = self._db.execute(f"SELECT {_join(columns)} FROM {table}")
            while rows := list(islice(cursor, ROWS)):
                yield rows

    def close(self) -> None:
        self._db.close()


class SqliteLoader:
    """One transaction on a new file, whose tables are those of a revision; `commit` upgrades them to this version's."""

    def __init__(self, path: Path, revision: str = HEAD):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._db = connect_to_write(path)
        prepare(self._db, path, revision)
        self._db.execute("BEGIN IMMEDIATE")
        self._emptied: set[str] = set()

    def list_columns(self, table: str) -> list[StoreColumn]:
        return _list_columns(self._db, table)

    def insert(self, table: str, columns: Sequence[StoreColumn], rows: list[tuple]) -> None:
        if table not in self._emptied:  # of the rows with which a new store begins
            self._db.execute(f"DELETE FROM {table}")
            self._emptied.add(table)
        marks = ", ".join("?" * len(columns))
        self._db.executemany(f"INSERT INTO {table} ({_join(columns)}) VALUES ({marks})", rows)

    def raise_offset(self, table: str, last: int) -> None:
        if not self.list_columns("offsets"):
            return  # of an earlier revision: the upgrade sets it
        self._db.execute(
            "INSERT INTO offsets (name, last) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)",
            (table, last),
        )

    def commit(self) -> None:
        self._db.execute("COMMIT")
        self._db.close()
        open_to_write(self.path).close()

    def close(self) -> None:
        self._db.close()


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite file that is not the event store, as of one moment, with SQLite's online backup."""
    target.parent.mkdir(parents=True, exist_ok=True)
    uri = f"{source.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_S)) as here, closing(sqlite3.connect(target)) as there:
            here.backup(there)
    except sqlite3.Error as error:
        raise HandsellError(f"{source} cannot be copied: {error}") from error


@contextmanager
def _explain(path: Path) -> Iterator[None]:
    """Raise EventStoreError, in words, for an error of SQLite."""
    try:
        yield
    except apsw.Error as error:
        raise explain_failure(path, error, "it cannot be read") from error


def _list_columns(db: apsw.Connection, table: str) -> list[StoreColumn]:
    rows: list[tuple] = db.execute(f"PRAGMA table_info({table})").fetchall()
    return [StoreColumn(row[1], _find_kind(table, row[1], row[2])) for row in rows]


def _find_kind(table: str, name: str, declared: str) -> ColumnKind:
    if declared.upper() not in KINDS:
        raise EventStoreError(f"column {table}.{name} has the unknown type {declared!r}")
    return KINDS[declared.upper()]


def _join(columns: Sequence[StoreColumn]) -> str:
    return ", ".join(f'"{column.name}"' for column in columns)
