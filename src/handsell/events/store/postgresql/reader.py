"""Read the event store from PostgreSQL. Calls block: a gateway makes them in a thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import psycopg

from handsell.events.store.postgresql.connection import connect, explain_failure, translate
from handsell.events.store.sql_reader import MEASURED, SqlReader

IDLE = 4  # connections that are kept open between calls


class PostgresReader(SqlReader):
    """Threads may share a reader; each call has a connection of its own while it runs."""

    def __init__(self, url: str):
        self.url = url
        self._idle: list[psycopg.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        weakref.finalize(self, _close_all, self._idle).atexit = False  # a reader may go with its bundle

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is not None:
                try:
                    return self._run(connection, sql, values)
                except (psycopg.OperationalError, psycopg.InterfaceError):
                    if not connection.closed:  # else the server has closed it meanwhile
                        raise
            connection = connect(self.url)
            return self._run(connection, sql, values)
        except psycopg.Error as error:
            raise explain_failure(self.url, error, "it cannot be read") from error

    def _run(self, connection: psycopg.Connection, sql: str, values: Sequence[Any]) -> list[tuple]:
        try:
            return connection.execute(translate(sql), values).fetchall()
        finally:
            with self._lock:
                keep = not connection.closed and not self._closed and len(self._idle) < IDLE
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()

    def _among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        return f"{column} = ANY(?)", list(values)

    def _contains(self, column: str) -> str:
        return f"strpos({column}, ?) > 0"

    def _asked(self, columns: dict[str, Sequence[Any]]) -> tuple[str, list[Any]]:
        kinds = {"user_id": "text"}
        marks = ", ".join(f"?::{kinds.get(name, 'bigint')}[]" for name in columns)
        names = ", ".join(columns)
        given = f"unnest({marks}) WITH ORDINALITY AS given({names}, number)"
        return f"SELECT number - 1 AS place, {names} FROM {given}", [list(values) for values in columns.values()]

    def _newest_of_each(self, table: str, columns: str, where: str, order: str) -> str:
        newest = f"SELECT * FROM {table} WHERE {where} ORDER BY {order} DESC LIMIT ?"
        return f"SELECT asked.place, {columns} FROM asked CROSS JOIN LATERAL ({newest}) AS found"

    def _count_bytes(self) -> int:
        sizes = " + ".join(f"pg_total_relation_size('{table}')" for table in MEASURED)
        return int(self._rows(f"SELECT {sizes}")[0][0])

    def close(self) -> None:
        with self._lock:
            self._closed = True
        _close_all(self._idle)


def _close_all(connections: list[psycopg.Connection]) -> None:
    while connections:
        connections.pop().close()
