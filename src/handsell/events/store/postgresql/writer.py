"""Write the event store in PostgreSQL, from any number of processes on any number of machines.

Each process commits its calls in groups. A group first locks the row of `offsets` that all groups lock, until its
commit is visible: so offsets rise in the order of commits, and a reader that has read through one misses none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from handsell.events.store.grouped_writer import GroupedWriter
from handsell.events.store.interface import EventStoreError
from handsell.events.store.postgresql.connection import connect, describe, explain_failure, is_unreachable, translate

BEGIN = "BEGIN; SELECT last FROM offsets WHERE name = 'events' FOR UPDATE"


class PostgresWriter(GroupedWriter):
    """The writer of a process. It connects at the first call, and again after a failure."""

    def __init__(self, url: str):
        self.url = url
        self._connection: psycopg.Connection | None = None
        super().__init__(describe(url))

    @contextlib.contextmanager
    def _transact(self) -> Iterator[PostgresTransaction]:
        connection = self._begin()
        try:
            yield PostgresTransaction(connection)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            raise
        finally:
            if connection.closed:
                self._disconnect()

    def _begin(self) -> psycopg.Connection:
        """Begin a transaction, on a new connection if the server has closed the former one."""
        if self._connection is not None:
            try:
                self._connection.execute(BEGIN)
                return self._connection
            except (psycopg.OperationalError, psycopg.InterfaceError):
                closed = self._connection.closed
                self._disconnect()
                if not closed:
                    raise
        self._connection = connect(self.url)
        self._connection.execute(BEGIN)
        return self._connection

    def _explain(self, error: Exception) -> EventStoreError:
        return explain_failure(self.url, error, "send again, an event that was stored counts once")

    def _is_unreachable(self, error: Exception) -> bool:
        return is_unreachable(error)

    def _is_about_data(self, error: Exception) -> bool:
        return isinstance(error, psycopg.DataError) or super()._is_about_data(error)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresTransaction:
    """See Transaction."""

    def __init__(self, connection: psycopg.Connection):
        self._connection = connection

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        return self._connection.execute(translate(sql), values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(translate(sql), values).rowcount

    def insert(self, table: str, names: Sequence[str], rows: Sequence[tuple]) -> None:
        if not rows:
            return
        columns = ", ".join(f'"{name}"' for name in names)
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        return f"{column} = ANY(?)", list(values)

    def allocate(self, table: str, count: int) -> range:
        if not count:
            return range(0)
        ((last,),) = self.rows("UPDATE offsets SET last = last + ? WHERE name = ? RETURNING last", (count, table))
        return range(last - count + 1, last + 1)
