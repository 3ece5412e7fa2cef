"""Those who write online rows: one at a time, and the stream processor sees a `materialize` of another process.

With an event store in PostgreSQL, lock and record are in the database, so the writers may be on several machines; with
SQLite there is one machine, and they are files.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, closing
from types import TracebackType
from typing import Protocol

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.store.interface import EventReader
from handsell.events.store.opening import find_store, has_one_writer, open_writer
from handsell.features.storage.materialization import (
    Materialization,
    open_row_lock,
    read_materialization,
    record_materialization,
)

STARTED, INCLUDED = "materialize_started", "materialize_includes"  # positions in the event store
SAVE_S = 30.0


class RowLock(Protocol):
    """Held while rows of users are written; it is released when the process ends. May be entered again."""

    def acquire(self, timeout: float = -1) -> AbstractContextManager: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> object: ...


def open_lock(config: Config) -> RowLock:
    """Return the lock of those who write online rows of a deployment."""
    if has_one_writer(config):
        return open_row_lock(Layout(config.state))
    from handsell.events.store.postgresql.database_lock import DatabaseLock  # of the extra `postgres`

    return DatabaseLock(find_store(config), f"online rows of {config.name}")


def record_batch_write(config: Config, log_offset: int) -> None:
    """Record a batch write before its first row, so that one that is killed half way is seen, too."""
    if has_one_writer(config):
        record_materialization(Layout(config.state), log_offset)
        return
    with closing(open_writer(config)) as writer:
        writer.save_position(INCLUDED, log_offset).result(SAVE_S)  # first: who sees the start sees its offset
        writer.save_position(STARTED, time.time_ns() // 1_000).result(SAVE_S)


def read_batch_write(config: Config, reader: EventReader) -> Materialization:
    """Return the last batch write of user rows."""
    if has_one_writer(config):
        return read_materialization(Layout(config.state))
    return Materialization(reader.read_position(STARTED), reader.read_position(INCLUDED))
