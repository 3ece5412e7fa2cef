"""Write the event store's SQLite file: one writer process, any number of readers on the machine.

A call completes only after its commit is on disk (WAL, synchronous FULL).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from handsell.events.store.grouped_writer import GroupedWriter
from handsell.events.store.interface import EventStoreError
from handsell.events.store.sqlite_file import build_condition, connect_to_write
from handsell.events.store.sqlite_schema import prepare


class SqliteWriter(GroupedWriter):
    """The writer. It holds a lock on the file until it is closed or its process ends."""

    def __init__(self, path: Path, *, lock_wait_s: float = 0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = _lock(path.with_suffix(".lock"), lock_wait_s)
        self._db = connect_to_write(path)
        prepare(self._db)
        super().__init__(f"event store {path}")

    @contextlib.contextmanager
    def _transact(self) -> Iterator[SqliteTransaction]:
        transaction = SqliteTransaction(self._db)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield transaction
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _explain(self, error: Exception) -> EventStoreError:
        return EventStoreError(f"{self.name}: nothing was stored: {error}; free disk space and send again")

    def _disconnect(self) -> None:
        self._db.close()
        self._lock.release()


class SqliteTransaction:
    """See Transaction."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        return self._db.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._db.execute(sql, values).rowcount

    def insert(self, table: str, names: Sequence[str], rows: Sequence[tuple]) -> None:
        columns = ", ".join(f'"{name}"' for name in names)
        self._db.executemany(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(names))})", rows)

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        return build_condition(column, values)

    def allocate(self, table: str, count: int) -> range:
        if count:
            self._db.execute("UPDATE offsets SET last = last + ? WHERE name = ?", (count, table))
        ((last,),) = self.rows("SELECT last FROM offsets WHERE name = ?", (table,))
        return range(last - count + 1, last + 1)


def _lock(path: Path, wait_s: float) -> FileLock:
    """Acquire the writer's lock; the kernel releases it when the process ends for any reason."""
    lock, owner = FileLock(path, mode=0o600, thread_local=False), path.with_suffix(".owner")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        held_by = owner.read_text() if owner.exists() else "unknown"
        raise EventStoreError(
            f"{path} is locked by process {held_by}: an event store in SQLite has one writer; stop that process first"
        ) from None
    owner.write_text(str(os.getpid()))
    return lock
