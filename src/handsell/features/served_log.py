"""Log of served feature vectors: tables and reader. Serving writes it, the skew report reads it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FEATURE_LOG = "features.db"  # in the deployment's log folder

TABLES = """
CREATE TABLE IF NOT EXISTS names (hash TEXT PRIMARY KEY, names TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS served (
    id INTEGER PRIMARY KEY AUTOINCREMENT, recommendation_id TEXT NOT NULL, user_id TEXT, item_id TEXT NOT NULL,
    time INTEGER NOT NULL, surface INTEGER NOT NULL, newest INTEGER NOT NULL, bundle TEXT NOT NULL,
    names TEXT NOT NULL, vector BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class LoggedVectors:
    """N rows of the log in order; all with the same feature names."""

    recommendation_id: list[str]
    user_id: list[str | None]
    item_id: list[str]
    time: np.ndarray  # (N,) int64 µs
    surface: np.ndarray  # (N,) int8
    newest: np.ndarray  # (N,) int64 µs of the newest event of the user's history as served, 0 = none
    bundle: list[str]
    names: tuple[str, ...]
    vectors: np.ndarray  # (N, F) float32


def has_served_vectors(path: Path) -> bool:
    """Return whether anything was logged."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        return _find_newest(db) is not None


def _find_newest(db: sqlite3.Connection) -> tuple[str] | None:
    """Return the hash of the feature names of the newest row, None without one."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'served'").fetchone():
        return None
    found: tuple[str] | None = db.execute("SELECT names FROM served ORDER BY id DESC LIMIT 1").fetchone()
    return found


def read_feature_log(path: Path, limit: int = 100_000) -> LoggedVectors | None:
    """Return the latest rows that have the latest feature names; None if nothing was logged."""
    if not path.exists():
        return None
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        last = _find_newest(db)
        if last is None:
            return None
        (names,) = db.execute("SELECT names FROM names WHERE hash = ?", last).fetchone()
        rows = db.execute(
            "SELECT recommendation_id, user_id, item_id, time, surface, newest, bundle, vector FROM served"
            " WHERE names = ? ORDER BY id DESC LIMIT ?",
            (*last, limit),
        ).fetchall()[::-1]
    finally:
        db.close()
    recommendation_id, user_id, item_id, time, surface, newest, bundle, vectors = map(list, zip(*rows, strict=True))
    return LoggedVectors(
        recommendation_id, user_id, item_id, np.array(time, np.int64), np.array(surface, np.int8),
        np.array(newest, np.int64), bundle, tuple(json.loads(names)),
        np.frombuffer(b"".join(vectors), "<f4").reshape(len(rows), -1),
    )  # fmt: skip
