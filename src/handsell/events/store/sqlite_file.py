"""Connections to the event store's SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUSY_S = 0.05  # a reader waits this long where the file is locked


def connect_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False)


def connect_to_write(path: Path) -> sqlite3.Connection:
    """Open the file so that a commit returns after the data is on disk, and deleted rows are overwritten."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def build_condition(column: str, values: Sequence[Any]) -> tuple[str, str]:
    """Return a condition that a column has one of the values, and the parameter of its one mark."""
    return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(list(values))


def count_file_bytes(path: Path) -> int:
    """Return the size of the file and its log of writes."""
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
