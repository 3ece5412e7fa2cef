"""Write the event store's SQLite file: one writer process, any number of readers on the machine.

A call completes only after its commit is on disk (WAL, synchronous FULL).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
from filelock import FileLock, Timeout

from handsell.events.store.commit_counter import ADD_ONE, CommitCounter
from handsell.events.store.grouped_writer import GroupedWriter
from handsell.events.store.interface import EventStoreError
from handsell.events.store.sqlite_file import build_condition, connect_to_write, explain_failure
from handsell.events.store.sqlite_upgrade import prepare


class SqliteWriter(GroupedWriter):
    """The writer. It holds a lock on the file until it is closed or its process ends."""

    def __init__(self, path: Path, *, lock_wait_s: float = 0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = lock_file(path, lock_wait_s)
        try:
            self._db = open_to_write(path)
            self._counter = open_counter(path, self._db)
        except BaseException:
            self._lock.release()
            raise
        super().__init__(f"event store {path}")

    @contextlib.contextmanager
    def _transact(self) -> Iterator[SqliteTransaction]:
        transaction = SqliteTransaction(self._db)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield transaction
            ((commits,),) = self._db.execute(ADD_ONE).fetchall()
            self._db.execute("COMMIT")
            self._counter.save(int(str(commits)))
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _explain(self, error: Exception) -> EventStoreError:
        remedy = "nothing was stored: free disk space and send again"
        if isinstance(error, apsw.Error):
            return explain_failure(self.path, error, remedy)
        return EventStoreError(f"{self.name}: {error!r}; {remedy}")

    def _disconnect(self) -> None:
        self._db.close()
        self._counter.close()
        self._lock.release()


class SqliteTransaction:
    """See Transaction."""

    def __init__(self, db: apsw.Connection):
        self._db = db

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        return self._db.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        self._db.execute(sql, values)
        return self._db.changes()

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


def open_to_write(path: Path) -> apsw.Connection:
    """Open the file, whose lock the caller holds; create or upgrade its tables. Raises EventStoreError."""
    try:
        db = connect_to_write(path)
        prepare(db, path)
        return db
    except apsw.Error as error:
        raise explain_failure(path, error, "check the permissions and free space of its folder") from error


def open_counter(path: Path, db: apsw.Connection) -> CommitCounter:
    """Compare the file with the count of its commits; raises EventStoreError if it lacks some."""
    try:
        return CommitCounter(path, db)
    except apsw.Error as error:
        raise explain_failure(path, error, "it cannot be read") from error
    except EventStoreError:
        db.close()
        raise


def lock_file(path: Path, wait_s: float) -> FileLock:
    """Acquire the lock of the file's writer; the kernel releases it when the process ends for any reason."""
    lock = FileLock(path.with_suffix(".lock"), mode=0o600, thread_local=False)
    owner = path.with_suffix(".owner")
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        held_by = owner.read_text() if owner.exists() else "unknown"
        raise EventStoreError(
            f"{lock.lock_file} is locked by process {held_by}: an event store in SQLite has one writer; "
            "stop that process first"
        ) from None
    owner.write_text(str(os.getpid()))
    return lock
