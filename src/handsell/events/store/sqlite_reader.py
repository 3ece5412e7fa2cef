"""Read the event store's SQLite file from any process of the machine, while its writer appends."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from handsell.events.store.sql_reader import SqlReader
from handsell.events.store.sqlite_file import build_condition, connect_to_read, count_file_bytes, explain_failure
from handsell.events.store.sqlite_upgrade import needs_upgrade
from handsell.events.store.sqlite_writer import lock_file, open_to_write

UPGRADE_WAIT_S = 5.0  # for the writer that upgrades the file at the same time


class SqliteReader(SqlReader):
    """Read-only access to the file. A store without a file yet is empty. Threads may share a reader.

    Without `waits`, it raises EventStoreError at once where another process holds the file for a moment.
    """

    def __init__(self, path: Path, waits: bool = True):
        self.path, self._waits = path, waits
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        try:
            with self._lock:  # a connection serves one thread at a time
                if self._connection is None and (not self.path.exists() or not self.path.stat().st_size):
                    return []
                if self._connection is None:
                    self._connection = open_to_read(self.path)
                    if not self._waits:
                        self._connection.set_busy_timeout(0)
                return self._connection.execute(sql, values).fetchall()
        except apsw.Error as error:
            raise explain_failure(self.path, error, "it cannot be read") from error

    def _among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        return build_condition(column, values)

    def _contains(self, column: str) -> str:
        return f"instr({column}, ?) > 0"

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
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def open_to_read(path: Path) -> apsw.Connection:
    """Open the file; upgrade it first if an earlier version has written it. Raises EventStoreError."""
    connection = connect_to_read(path)
    if needs_upgrade(connection, path):
        connection.close()
        with lock_file(path, UPGRADE_WAIT_S):
            open_to_write(path).close()
        connection = connect_to_read(path)
    return connection
