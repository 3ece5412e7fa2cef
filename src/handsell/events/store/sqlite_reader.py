"""Read the event store's SQLite file from any process of the machine, while its writer appends."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handsell.events.store.interface import EventStoreError
from handsell.events.store.sql_reader import SqlReader
from handsell.events.store.sqlite_file import build_condition, connect_to_read, count_file_bytes


class SqliteReader(SqlReader):
    """Read-only access to the file. A store without a file yet is empty. Threads may share a reader."""

    def __init__(self, path: Path):
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        try:
            if self._connection is None:
                if not self.path.exists():
                    return []
                self._connection = connect_to_read(self.path)
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise EventStoreError(f"event store {self.path} cannot be read: {error}") from error

    def _among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        return build_condition(column, values)

    def _asked(self, columns: dict[str, Sequence[Any]]) -> tuple[str, list[Any]]:
        rows = list(zip(*columns.values(), strict=True))
        marks = ", ".join([f"(?, {', '.join('?' * len(columns))})"] * len(rows))
        names = ", ".join(f"column{i} AS {name}" for i, name in enumerate(("place", *columns), start=1))
        return f"SELECT {names} FROM (VALUES {marks})", [v for at, row in enumerate(rows) for v in (at, *row)]

    def _newest_of_each(self, table: str, columns: str, where: str, order: str) -> str:
        # SQLite has no LATERAL: the subquery finds the newest rows in the index of users alone
        newest = f'SELECT "offset" FROM {table} WHERE {where} ORDER BY {order} DESC LIMIT ?'
        return (
            f'SELECT asked.place, {columns} FROM asked CROSS JOIN {table} AS found WHERE found."offset" IN ({newest})'
        )

    def _count_bytes(self) -> int:
        return count_file_bytes(self.path)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
