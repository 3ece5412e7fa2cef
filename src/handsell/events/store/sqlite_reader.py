"""Read the event log from any process of the machine, while its writer appends."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from handsell.events.store.interface import EVENT_FIELDS, CatalogChange, Columns

_COLUMNS = ("offset", *EVENT_FIELDS)
_SELECT = f'SELECT "offset", {", ".join(EVENT_FIELDS)} FROM events'
_KEYED = f'SELECT "offset", {", ".join(EVENT_FIELDS)}, key FROM events'
_SLATES = 'SELECT "offset", recommendation_id, gateway, sequence, time, user_id, surface, bundle, items FROM slates'


class SqliteReader:
    """Read-only access to the log. A log without a file yet is empty."""

    def __init__(self, path: Path):
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def read_tail(self, user_id: str, after_offset: int = 0, limit: int = 2_000) -> Columns:
        """Read the newest `limit` events of a user after an offset, in log order, with their keys.

        The keys are None in a log that its writer has not upgraded yet.
        """
        where = 'WHERE user_id = ? AND "offset" > ? ORDER BY "offset" DESC LIMIT ?'
        values = (user_id, after_offset, limit)
        try:
            rows = self._rows(f"{_KEYED} {where}", values)
        except sqlite3.OperationalError as error:
            if "no such column" not in str(error):
                raise
            rows = [(*row, None) for row in self._rows(f"{_SELECT} {where}", values)]
        return _columns(rows[::-1], (*_COLUMNS, "key"))

    def scan(self, after_offset: int = 0, limit: int = 10_000) -> Columns:
        """Read the next `limit` events after an offset, in log order."""
        sql = f'{_SELECT} WHERE "offset" > ? ORDER BY "offset" LIMIT ?'
        return _columns(self._rows(sql, (after_offset, limit)))

    def last_offset(self) -> int:
        """Return the offset of the newest event, 0 in an empty log."""
        rows = self._rows('SELECT max("offset") FROM events', ())
        return int(rows[0][0] or 0) if rows else 0

    def read_user_slates(
        self, user_id: str, since: int, before: int, limit: int = 500
    ) -> list[tuple[int, str, list[str]]]:
        """Read (time µs, surface, item ids) of a user's newest `limit` slates in [since, before), newest first."""
        sql = (
            "SELECT time, surface, items FROM slates WHERE user_id = ? AND time >= ? AND time < ? "
            "ORDER BY time DESC LIMIT ?"
        )
        rows = self._rows(sql, (user_id, since, before, limit))
        return [(time, surface, json.loads(items)["item_id"]) for time, surface, items in rows]

    def count_slates(self, user_ids: Sequence[str], surface: str, since: int, before: int) -> dict[str, int]:
        """Count the slates of a surface in [since, before) µs by user; users without one are left out."""
        marks = ", ".join("?" * len(user_ids))
        sql = (
            f"SELECT user_id, count(*) FROM slates WHERE user_id IN ({marks}) AND time >= ? AND time < ? "
            "AND surface = ? GROUP BY user_id"
        )
        return dict(self._rows(sql, (*user_ids, since, before, surface)))

    def read_blocks(self, user_ids: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
        """Read blocked creators and tags by user; users without blocks are left out."""
        marks = ", ".join("?" * len(user_ids))
        rows = self._rows(f"SELECT user_id, creators, tags FROM blocks WHERE user_id IN ({marks})", tuple(user_ids))
        return {user_id: (json.loads(creators), json.loads(tags)) for user_id, creators, tags in rows}

    def read_impressions(self, after_offset: int = 0, limit: int = 1_000) -> Columns:
        """Read the items of the next `limit` slates: one row per item with its position (1 = top), in log order."""
        names = ("offset", "recommendation_id", "gateway", "sequence", "time", "user_id", "surface", "bundle")
        own = ("item_id", "position", "score", "propensity", "sources", "rules")
        columns: Columns = {n: [] for n in (*names, *own)}
        for *slate, items in self._rows(
            f'{_SLATES} WHERE "offset" > ? ORDER BY "offset" LIMIT ?', (after_offset, limit)
        ):
            shown = json.loads(items)
            n = len(shown["item_id"])
            for name, value in zip(names, slate, strict=True):
                columns[name] += [value] * n
            columns["position"] += range(1, n + 1)
            columns["rules"] += [shown.get("rules")] * n  # version of the business rules, or None
            for name in ("item_id", "score", "propensity", "sources"):
                columns[name] += shown[name]
        return columns

    def read_slates(
        self, after_offset: int = 0, limit: int = 1_000
    ) -> list[tuple[int, int, str | None, str, list[str]]]:
        """Read (offset, time µs, user id, surface, item ids) of the next `limit` served slates."""
        sql = 'SELECT "offset", time, user_id, surface, items FROM slates WHERE "offset" > ? ORDER BY "offset" LIMIT ?'
        return [(*slate, json.loads(items)["item_id"]) for *slate, items in self._rows(sql, (after_offset, limit))]  # type: ignore[misc]

    def find_slate_offset(self, time: int) -> int:
        """Return the offset after which slates of `time` µs and later are logged, by binary search.

        Slates are logged in order of time only up to about a second: pass a time that much earlier.
        """
        rows = self._rows('SELECT min("offset"), max("offset") FROM slates', ())
        if not rows or rows[0][0] is None:
            return 0
        low, high = int(rows[0][0]) - 1, int(rows[0][1])
        while low < high:
            middle = (low + high + 1) // 2
            at = self._rows('SELECT time FROM slates WHERE "offset" <= ? ORDER BY "offset" DESC LIMIT 1', (middle,))
            if at[0][0] < time:
                low = middle
            else:
                high = middle - 1
        return low

    def count_lost_impressions(self) -> dict[str, int]:
        """Count the missing sequence numbers of slates by gateway."""
        sql = "SELECT gateway, max(sequence) - count(DISTINCT sequence) FROM slates GROUP BY gateway"
        return dict(self._rows(sql, ()))

    def read_changes(self, after_offset: int = 0, limit: int = 10_000) -> list[CatalogChange]:
        return self._read_changes('"offset" > ? ORDER BY "offset" LIMIT ?', (after_offset, limit))

    def read_changes_of(self, kind: str, ids: Sequence[str]) -> list[CatalogChange]:
        marks = ", ".join("?" * len(ids))
        return self._read_changes(f'kind = ? AND id IN ({marks}) ORDER BY "offset"', (kind, *ids))

    def last_change_offset(self) -> int:
        rows = self._rows('SELECT max("offset") FROM catalog_changes', ())
        return int(rows[0][0] or 0) if rows else 0

    def read_position(self, name: str) -> int:
        rows = self._rows('SELECT "offset" FROM positions WHERE name = ?', (name,))
        return int(rows[0][0]) if rows else 0

    def _read_changes(self, where: str, values: tuple) -> list[CatalogChange]:
        sql = f'SELECT kind, id, action, fields, time, "offset" FROM catalog_changes WHERE {where}'
        return [CatalogChange(k, i, a, json.loads(f), t, o) for k, i, a, f, t, o in self._rows(sql, values)]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _rows(self, sql: str, values: tuple) -> list[tuple]:
        if self._connection is None:
            if not self.path.exists():
                return []
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, timeout=0.05, check_same_thread=False)
        return self._connection.execute(sql, values).fetchall()


def _columns(rows: list[tuple], names: tuple[str, ...] = _COLUMNS) -> Columns:
    values = zip(*rows, strict=True) if rows else [()] * len(names)
    return {name: list(column) for name, column in zip(names, values, strict=True)}
