"""A lock in the PostgreSQL database, which processes on any number of machines share."""

from __future__ import annotations

import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from filelock import Timeout

from handsell.events.store.postgresql.connection import connect, explain_failure

SPACE = 0x68616E64  # "hand": the locks of handsell among those of the database
POLL_S = 0.05
CHECKS = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")  # of a holder's machine


class DatabaseLock:
    """Held by one process at a time; the database releases it when the process or its machine ends.

    The threads of a process share the object, as with the file lock that it stands for, and may enter it again.
    """

    def __init__(self, url: str, name: str):
        self._url, self._name, self._key = url, name, zlib.crc32(name.encode()) - 2**31
        self._holds, self._guard = 0, threading.RLock()
        self._connection: psycopg.Connection | None = None
        self._opened: list[psycopg.Connection] = []  # closed with this object
        weakref.finalize(self, _close_all, self._opened).atexit = False

    @contextmanager
    def acquire(self, timeout: float = -1) -> Iterator[None]:
        """Hold the lock in the block; raises Timeout after `timeout` s, EventStoreError without the database."""
        self._take(timeout)
        try:
            yield
        finally:
            self._give_back()

    def __enter__(self) -> None:
        self._take(-1)

    def __exit__(self, *details: object) -> None:
        self._give_back()

    def _take(self, timeout: float) -> None:
        until = time.monotonic() + timeout if timeout >= 0 else None
        while True:
            with self._guard:
                if self._holds or self._try():
                    self._holds += 1
                    return
            if until is not None and time.monotonic() >= until:
                raise Timeout(self._name)
            time.sleep(POLL_S)

    def _try(self) -> bool:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._url)
                self._opened[:] = [self._connection]
                for name, value in zip(CHECKS, ("5", "2", "3"), strict=True):
                    self._connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            row: Any = self._connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (SPACE, self._key)).fetchone()
            return bool(row[0])
        except psycopg.Error as error:
            self._close()
            raise explain_failure(self._url, error, "no online rows are written meanwhile") from error

    def _give_back(self) -> None:
        with self._guard:
            self._holds -= 1
            if self._holds or self._connection is None:
                return
            try:
                self._connection.execute("SELECT pg_advisory_unlock(%s, %s)", (SPACE, self._key))
            except psycopg.Error:  # the database has released it with the connection
                self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


def _close_all(connections: list[psycopg.Connection]) -> None:
    for connection in connections:
        connection.close()
