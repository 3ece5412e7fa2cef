"""Connections to the event store's SQLite file, whose pages carry checksums.

Every page has 8 bytes of checksum, verified whenever it is read (SQLite's extension `cksumvfs`). The `sqlite3` module
of Python has neither that extension nor the same library: do not open the file with it in a process that uses this
one, because closing it would release the locks of both.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import apsw
import apsw.sqlite_extra

from handsell.events.store.interface import EventStoreError

CHECKSUM_BYTES = 8  # reserved at the end of each page
BUSY_MS = 5_000  # wait for another process that recovers or checkpoints the file
_WITH_CHECKSUMS = "cksmvfs"
_CACHE_KIB = 65_536  # of the writer: keys are hashes, so that new rows change pages all over their index
_WAL_PAGES = 8_000  # 32 MB: a page that many commits change is written to the file once


@cache
def _load_checksums() -> None:
    connection = apsw.Connection(":memory:")
    apsw.sqlite_extra.load(connection, "cksumvfs")
    connection.close()


def connect_to_read(path: Path) -> apsw.Connection:
    return _connect(path, apsw.SQLITE_OPEN_READONLY)


def connect_to_write(path: Path) -> apsw.Connection:
    """Open or create the file so that a commit returns after the data is on disk, and deleted rows are overwritten."""
    new = not path.exists() or path.stat().st_size == 0
    connection = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    if new:
        connection.reserve_bytes("main", CHECKSUM_BYTES)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
    return connection


def _connect(path: Path, flags: int) -> apsw.Connection:
    _load_checksums()
    connection = apsw.Connection(str(path), flags=flags, vfs=_WITH_CHECKSUMS)
    connection.set_busy_timeout(BUSY_MS)
    return connection


def has_checksums(connection: apsw.Connection) -> bool:
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # reads the header
    return connection.reserve_bytes() == CHECKSUM_BYTES


def add_checksums(connection: apsw.Connection) -> None:
    """Rewrite the file of an earlier version with checksums."""
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.reserve_bytes("main", CHECKSUM_BYTES)
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode=WAL")


def explain_failure(path: Path, error: apsw.Error, otherwise: str) -> EventStoreError:
    """Say what is wrong with the file, and what to do: restore it where it is damaged, `otherwise` in other cases."""
    unreadable = getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_DATA
    if unreadable or isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return build_damage_error(path, "a page has a wrong checksum" if unreadable else str(error))
    return EventStoreError(f"event store {path}: {error}; {otherwise}")


def build_damage_error(path: Path, what: str) -> EventStoreError:
    return EventStoreError(
        f"event store {path} is damaged ({what}): stop the service, check the disk, and restore the store from the "
        "latest backup with handsell restore"
    )


def build_condition(column: str, values: Collection[Any]) -> tuple[str, Any]:
    """Return a condition that a column has one of the values, and the parameter of its one mark."""
    if len(values) == 1:
        return f"{column} = ?", next(iter(values))
    return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(list(values))


def count_file_bytes(path: Path) -> int:
    """Return the size of the file and its log of writes."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
