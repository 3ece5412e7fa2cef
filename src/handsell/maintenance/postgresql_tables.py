"""Read and fill the tables of an event store in PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from handsell.events.store.interface import EventStoreError
from handsell.events.store.postgresql.connection import connect, describe, explain_failure
from handsell.events.store.schema import READ_REVISION
from handsell.maintenance.store_tables import ROWS, TABLES, ColumnKind, StoreColumn

KINDS: dict[str, ColumnKind] = {
    "bigint": "int", "integer": "int", "smallint": "int", "double precision": "float", "real": "float", "text": "text",
    "character varying": "text", "bytea": "bytes",
}  # fmt: skip
TRIES, WAIT_S = 20, 0.1


class PostgresqlSnapshot:
    """One repeatable-read transaction: writers go on, and their later commits are not seen."""

    engine = "postgresql"

    def __init__(self, url: str):
        self.url = url
        with _explain(url):
            connect(url).close()  # checks the database, and creates or upgrades its tables
            self._db = psycopg.connect(url, connect_timeout=10)  # without a limit of time for a statement
        self._db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._db.read_only = True

    def check(self) -> None:
        """PostgreSQL checks each page as it is read, where the cluster has checksums."""

    def read_revision(self) -> str:
        with _explain(self.url):
            row = self._db.execute(READ_REVISION).fetchone()
        return row[0] if row else ""

    def list_columns(self, table: str) -> list[StoreColumn]:
        with _explain(self.url):
            return _list_columns(self._db, table)

    def read_rows(self, table: str, columns: Sequence[StoreColumn]) -> Iterator[list[tuple]]:
        with _explain(self.url), self._db.cursor(name=f"backup_{table}") as cursor:
            cursor.itersize = ROWS
            cursor.execute(f"SELECT {_join(columns)} FROM {table}")
            while rows := cursor.fetchmany(ROWS):
                yield rows

    def close(self) -> None:
        self._db.close()


class PostgresqlLoader:
    """One transaction on the tables of this version; raises EventStoreError unless they are empty or may be emptied.

    No other process may be connected to the database.
    """

    def __init__(self, url: str, replace: bool):
        self.url = url
        with _explain(url):
            connect(url).close()
            self._db = psycopg.connect(url, connect_timeout=10)
        try:
            with _explain(url):
                self._require_alone()
                self._empty(replace)
        except BaseException:
            self._db.close()
            raise

    def _require_alone(self) -> None:
        for _ in range(TRIES):  # the server notices a closed connection some time later
            others = self._count(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            self._db.rollback()  # the view is as of the beginning of a transaction
            if not others:
                return
            time.sleep(WAIT_S)
        raise EventStoreError(
            f"{others} other connections to the {describe(self.url)}: stop all services and jobs that use it"
        )

    def _empty(self, replace: bool) -> None:
        there = [table for table in TABLES if _list_columns(self._db, table)]
        filled = [name for name in there if name != "offsets" and self._count(f"SELECT count(*) FROM {name}")]
        if filled and not replace:
            raise EventStoreError(
                f"{describe(self.url)}: table {filled[0]} has rows: `handsell restore CONFIG DIR --replace` empties it"
            )
        self._db.execute(f"TRUNCATE {', '.join(there)}")

    def list_columns(self, table: str) -> list[StoreColumn]:
        return _list_columns(self._db, table)

    def insert(self, table: str, columns: Sequence[StoreColumn], rows: list[tuple]) -> None:
        copy_rows = f"COPY {table} ({_join(columns)}) FROM STDIN"
        with _explain(self.url), self._db.cursor() as cursor, cursor.copy(copy_rows) as copy:
            for row in rows:
                copy.write_row(row)

    def raise_offset(self, table: str, last: int) -> None:
        self._db.execute(
            "INSERT INTO offsets (name, last) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET last = greatest(offsets.last, excluded.last)",
            (table, last),
        )

    def commit(self) -> None:
        with _explain(self.url):
            self._db.commit()

    def close(self) -> None:
        self._db.close()

    def _count(self, query: str) -> int:
        row = self._db.execute(query).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def _explain(url: str) -> Iterator[None]:
    """Raise EventStoreError, in words, for an error of the database."""
    try:
        yield
    except psycopg.Error as error:
        raise explain_failure(url, error, "nothing was changed") from error


def _list_columns(db: psycopg.Connection, table: str) -> list[StoreColumn]:
    rows = db.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = %s ORDER BY ordinal_position",
        (table,),
    ).fetchall()
    return [StoreColumn(name, _find_kind(table, name, declared)) for name, declared in rows]


def _find_kind(table: str, name: str, declared: str) -> ColumnKind:
    if declared not in KINDS:
        raise EventStoreError(f"column {table}.{name} has the unknown type {declared!r}")
    return KINDS[declared]


def _join(columns: Sequence[StoreColumn]) -> str:
    return ", ".join(f'"{column.name}"' for column in columns)
