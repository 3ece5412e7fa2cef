"""Read and fill the tables of an event store in a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from handsell.events.store.interface import EventStoreError
from handsell.maintenance.store_tables import ROWS, ColumnKind, StoreColumn

AFFINITY: dict[str, ColumnKind] = {"INT": "int", "CHAR": "text", "TEXT": "text", "REAL": "float", "BLOB": "bytes"}
WAIT_S = 10.0


class SqliteSnapshot:
    """One read transaction: the writer goes on, and its later commits are not seen."""

    engine = "sqlite"

    def __init__(self, path: Path):
        self.path = path
        if not path.is_file():
            raise EventStoreError(f"event log {path} does not exist: start the service once, or correct events.store")
        uri = f"{path.resolve().as_uri()}?mode=ro"
        self._db = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        with _explain_damage(path):
            self._db.execute("BEGIN")
            self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the transaction begins with a read

    def check(self) -> None:
        """Raise EventStoreError if the file is damaged: pages, or indexes that differ from their tables."""
        with _explain_damage(self.path):
            (found,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise _damage_error(self.path, found)

    def read_revision(self) -> str:
        try:
            row = self._db.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:  # a store of before migrations
            return ""
        return str(row[0]) if row else ""

    def list_columns(self, table: str) -> list[StoreColumn]:
        with _explain_damage(self.path):
            return _list_columns(self._db, table)

    def read_rows(self, table: str, columns: Sequence[StoreColumn]) -> Iterator[list[tuple]]:
        with _explain_damage(self.path):
            cursor = self._db.execute(f"SELECT {_join(columns)} FROM {table}")
            while rows := cursor.fetchmany(ROWS):
                yield rows

    def close(self) -> None:
        self._db.close()


class SqliteLoader:
    """One transaction on a new file, whose tables exist and are empty."""

    def __init__(self, path: Path):
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("BEGIN IMMEDIATE")
        self._empty: set[str] = set()

    def list_columns(self, table: str) -> list[StoreColumn]:
        return _list_columns(self._db, table)

    def insert(self, table: str, columns: Sequence[StoreColumn], rows: list[tuple]) -> None:
        if table not in self._empty:  # such as the rows with which a new store begins
            self._db.execute(f"DELETE FROM {table}")
            self._empty.add(table)
        marks = ", ".join("?" * len(columns))
        self._db.executemany(f"INSERT INTO {table} ({_join(columns)}) VALUES ({marks})", rows)

    def raise_offset(self, table: str, last: int) -> None:
        self._db.execute(
            "INSERT INTO offsets (name, last) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET last = max(last, excluded.last)",
            (table, last),
        )

    def commit(self) -> None:
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._db.close()


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite file as of one moment, with SQLite's online backup, while others write it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _explain_damage(source):
        here = sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True, timeout=WAIT_S)
        there = sqlite3.connect(target)
        try:
            here.backup(there)
        finally:
            here.close()
            there.close()


class _explain_damage:
    """Raise EventStoreError, in words, for an error of SQLite."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.DatabaseError):
            raise _damage_error(self.path, str(error)) from error


def _damage_error(path: Path, cause: str) -> EventStoreError:
    reason = " ".join(cause.split())
    return EventStoreError(f"{path} cannot be read ({reason}): restore a backup with `handsell restore CONFIG DIR`")


def _list_columns(db: sqlite3.Connection, table: str) -> list[StoreColumn]:
    return [StoreColumn(row[1], _find_kind(table, row[1], row[2])) for row in db.execute(f"PRAGMA table_info({table})")]


def _find_kind(table: str, name: str, declared: str) -> ColumnKind:
    for part, kind in AFFINITY.items():
        if part in declared.upper():
            return kind
    raise EventStoreError(f"column {table}.{name} has the unknown type {declared!r}")


def _join(columns: Sequence[StoreColumn]) -> str:
    return ", ".join(f'"{column.name}"' for column in columns)
