"""Read and fill the tables of an event store in PostgreSQL, with COPY."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg

from handsell.events.store.interface import EventStoreError
from handsell.maintenance.store_tables import ROWS, TABLES, ColumnKind, StoreColumn

KINDS: dict[str, ColumnKind] = {
    "bigint": "int", "integer": "int", "smallint": "int", "double precision": "float", "real": "float", "text": "text",
    "character varying": "text", "bytea": "bytes",
}  # fmt: skip


class PostgresqlSnapshot:
    """One repeatable-read transaction: writers go on, and their later commits are not seen."""

    engine = "postgresql"

    def __init__(self, url: str):
        self._db = _connect(url)
        self._db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._db.read_only = True

    def check(self) -> None:
        """PostgreSQL checks each page as it is read."""

    def read_revision(self) -> str:
        row = self._db.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
        if row is None or not row[0]:
            return ""
        found = self._db.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found[0]) if found else ""

    def list_columns(self, table: str) -> list[StoreColumn]:
        return _list_columns(self._db, table)

    def read_rows(self, table: str, columns: Sequence[StoreColumn]) -> Iterator[list[tuple]]:
        with self._db.cursor(name=f"backup_{table}") as cursor:
            cursor.itersize = ROWS
            cursor.execute(f"SELECT {_join(columns)} FROM {table}")
            while rows := cursor.fetchmany(ROWS):
                yield rows

    def close(self) -> None:
        self._db.close()


class PostgresqlLoader:
    """One transaction on tables that exist; raises EventStoreError unless they are empty or may be emptied."""

    def __init__(self, url: str, replace: bool):
        self._db = _connect(url)
        there = [table for table in TABLES if _list_columns(self._db, table)]
        others = self._db.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ).fetchone()
        if others and others[0]:
            raise EventStoreError(
                f"{others[0]} other processes are connected to the event store's database: stop the service first"
            )
        for table in ("events", "slates", "catalog_changes"):
            if not replace and self._db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
                raise EventStoreError(
                    f"table {table} of the event store has rows: `handsell restore CONFIG DIR --replace` empties it"
                )
        self._db.execute(f"TRUNCATE {', '.join(there)}")

    def list_columns(self, table: str) -> list[StoreColumn]:
        return _list_columns(self._db, table)

    def insert(self, table: str, columns: Sequence[StoreColumn], rows: list[tuple]) -> None:
        with self._db.cursor() as cursor, cursor.copy(f"COPY {table} ({_join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def raise_offset(self, table: str, last: int) -> None:
        self._db.execute(
            "INSERT INTO offsets (name, last) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET last = greatest(offsets.last, excluded.last)",
            (table, last),
        )

    def commit(self) -> None:
        self._db.commit()

    def close(self) -> None:
        self._db.close()


def _connect(url: str) -> psycopg.Connection:
    try:
        return psycopg.connect(url, connect_timeout=10)
    except psycopg.Error as error:
        raise EventStoreError(f"the event store's database does not answer ({error}): start PostgreSQL") from None


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
