"""Read the event store, in SQL that every engine understands; an engine runs it and gives its own parts."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from handsell.access.api_key import ApiKey
from handsell.access.audit_entry import AuditEntry
from handsell.core.units import DAY_US
from handsell.events.store.access_rows import AUDIT_COLUMNS, KEY_COLUMNS, read_key
from handsell.events.store.interface import TAIL, Blocks, CatalogChange, Columns, Erasure, Identity, Slate
from handsell.events.store.rows import (
    CHANGE_COLUMNS,
    EVENT_COLUMNS,
    SLATE_COLUMNS,
    build_columns,
    build_impressions,
    read_change,
)

MEASURED = (
    "events", "slates", "catalog_changes", "identities", "blocks", "erasures", "positions", "trimmed_keys",
    "api_keys", "audit",
)  # fmt: skip


def _list_columns(names: Sequence[str], table: str = "") -> str:
    """Return column names for a SELECT; `offset` is a word of SQL."""
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"offset"' if name == "offset" else prefix + name for name in names)


_EVENTS = f"SELECT {_list_columns(EVENT_COLUMNS)} FROM events"
_SLATES = f"SELECT {_list_columns(SLATE_COLUMNS)} FROM slates"
_CHANGES = f"SELECT {_list_columns(CHANGE_COLUMNS)} FROM catalog_changes"
_KEYS = f"SELECT {_list_columns(KEY_COLUMNS)} FROM api_keys"
_AUDIT = f"SELECT {_list_columns(AUDIT_COLUMNS)} FROM audit"
NEWEST = 'WHERE user_id = ? AND "offset" > ? ORDER BY "offset" DESC LIMIT ?'
NEXT = 'WHERE "offset" > ? ORDER BY "offset" LIMIT ?'


class SqlReader(ABC):
    """The methods of EventReader (interface.py)."""

    @abstractmethod
    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple]:
        """Return the rows of a query with `?` marks, none of a store that does not exist yet."""

    @abstractmethod
    def _among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        """Return a condition that a column has one of the values, and the parameter of its one mark."""

    @abstractmethod
    def _contains(self, column: str) -> str:
        """Return a condition that a text column contains the text of its one mark."""

    @abstractmethod
    def _asked(self, columns: dict[str, Sequence[Any]]) -> tuple[str, list[Any]]:
        """Return a table of parameters with an integer column `place` (0, 1, …), and the values of its marks."""

    @abstractmethod
    def _newest_of_each(self, table: str, columns: str, where: str, order: str) -> str:
        """Return a join of `asked` with the newest rows of a table for each of its rows, with a mark for the limit."""

    @abstractmethod
    def _count_bytes(self) -> int: ...

    @abstractmethod
    def close(self) -> None: ...

    # -- events ---------------------------------------------------------------------------------------------

    def read_tail(self, user_id: str, after_offset: int = 0, limit: int = TAIL) -> Columns:
        columns = self.read_tails([user_id], [after_offset], limit)
        del columns["row"]
        return columns

    def read_tails(self, user_ids: Sequence[str], after_offsets: Sequence[int], limit: int = TAIL) -> Columns:
        names = ("row", *EVENT_COLUMNS)
        if not user_ids:
            return build_columns([], names)
        if len(user_ids) == 1:  # a third of the time of the join
            rows = self._rows(f"{_EVENTS} {NEWEST}", (user_ids[0], after_offsets[0], limit))
            return build_columns([(0, *row) for row in reversed(rows)], names)
        asked, values = self._asked({"user_id": user_ids, "after": after_offsets})
        where = 'user_id = asked.user_id AND "offset" > asked.after'
        newest = self._newest_of_each("events", _list_columns(EVENT_COLUMNS, "found"), where, '"offset"')
        sql = f'WITH asked AS ({asked}) {newest} ORDER BY asked.place, found."offset"'
        return build_columns(self._rows(sql, (*values, limit)), names)

    def scan(self, after_offset: int = 0, limit: int = 10_000) -> Columns:
        return build_columns(self._rows(f"{_EVENTS} {NEXT}", (after_offset, limit)), EVENT_COLUMNS)

    def last_offset(self) -> int:
        return self._last_offset("events")

    def count_item_events(self, item_id: str, after_offset: int = 0) -> list[tuple[str, int, int, int]]:
        sql = (
            f"SELECT type, time / {DAY_US} AS day, count(*), count(recommendation_id) FROM events "
            'WHERE "offset" > ? AND item_id = ? GROUP BY type, day ORDER BY type, day'
        )
        rows = self._rows(sql, (after_offset, item_id))
        return [(kind, int(day), int(n), int(recommended)) for kind, day, n, recommended in rows]

    # -- slates ---------------------------------------------------------------------------------------------

    def read_user_slates(self, user_id: str, since: int, before: int, limit: int = 500) -> list[Slate]:
        return self.read_slates_of_users([user_id], [since], [before], limit)[0]

    def read_slates_of_users(
        self, user_ids: Sequence[str], since: Sequence[int], before: Sequence[int], limit: int = 500
    ) -> list[list[Slate]]:
        slates: list[list[Slate]] = [[] for _ in user_ids]
        if not user_ids:
            return slates
        asked, values = self._asked({"user_id": user_ids, "since": since, "before": before})
        where = "user_id = asked.user_id AND time >= asked.since AND time < asked.before"
        newest = self._newest_of_each("slates", "found.time, found.surface, found.items", where, 'time DESC, "offset"')
        sql = f'WITH asked AS ({asked}) {newest} ORDER BY asked.place, found.time DESC, found."offset" DESC'
        for place, time, surface, items in self._rows(sql, (*values, limit)):
            slates[place].append((time, surface, json.loads(items)["item_id"]))
        return slates

    def count_slates(self, user_ids: Sequence[str], surface: str, since: int, before: int) -> dict[str, int]:
        among, value = self._among("user_id", user_ids)
        sql = (
            f"SELECT user_id, count(*) FROM slates WHERE {among} AND time >= ? AND time < ? "
            "AND surface = ? GROUP BY user_id"
        )
        return dict(self._rows(sql, (value, since, before, surface)))  # type: ignore[arg-type]

    def read_impressions(self, after_offset: int = 0, limit: int = 1_000) -> Columns:
        return build_impressions(self._rows(f"{_SLATES} {NEXT}", (after_offset, limit)))

    def read_item_impressions(self, item_id: str, after_offset: int = 0, limit: int = 10_000) -> Columns:
        written = [json.dumps(item_id, ensure_ascii=is_ascii) for is_ascii in (True, False)]  # by jobs, by gateways
        contains = self._contains("items")
        sql = f'{_SLATES} WHERE "offset" > ? AND ({contains} OR {contains}) ORDER BY "offset" LIMIT ?'
        shown = build_impressions(self._rows(sql, (after_offset, *written, limit)))
        mine = [row for row, shown_id in enumerate(shown["item_id"]) if shown_id == item_id]
        return {name: [column[row] for row in mine] for name, column in shown.items()}

    def read_slates(
        self, after_offset: int = 0, limit: int = 1_000
    ) -> list[tuple[int, int, str | None, str, list[str]]]:
        rows = self._rows(f'SELECT "offset", time, user_id, surface, items FROM slates {NEXT}', (after_offset, limit))
        return [(o, time, user, on, json.loads(items)["item_id"]) for o, time, user, on, items in rows]

    def find_slate_offset(self, time: int) -> int:
        """By binary search; see EventReader."""
        rows = self._rows('SELECT min("offset"), max("offset") FROM slates')
        if not rows or rows[0][0] is None:
            return self._last_offset("slates")
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
        counts = "SELECT gateway, max(sequence) AS last, count(DISTINCT sequence) AS count FROM slates GROUP BY gateway"
        removed = "SELECT gateway, last, count FROM removed_slates"
        sql = f"SELECT gateway, max(last) - sum(count) FROM ({counts} UNION ALL {removed}) AS counts GROUP BY gateway"
        return {gateway: int(lost) for gateway, lost in self._rows(sql)}

    # -- users ----------------------------------------------------------------------------------------------

    def read_blocks(self, user_ids: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
        among, value = self._among("user_id", user_ids)
        rows = self._rows(f"SELECT user_id, creators, tags FROM blocks WHERE {among}", (value,))
        return {user_id: (json.loads(creators), json.loads(tags)) for user_id, creators, tags in rows}

    def read_changed_blocks(self, after_offset: int = 0, limit: int = 10_000) -> list[Blocks]:
        rows = self._rows(f'SELECT user_id, creators, tags, "offset" FROM blocks {NEXT}', (after_offset, limit))
        return [Blocks(user, tuple(json.loads(c)), tuple(json.loads(t)), offset) for user, c, t, offset in rows]

    def read_identities(self, after_offset: int = 0, limit: int = 10_000) -> list[Identity]:
        sql = f'SELECT visitor_id, user_id, time, "offset", unit FROM identities {NEXT}'
        return [Identity(*row) for row in self._rows(sql, (after_offset, limit))]

    def read_owners(self, visitor_ids: Sequence[str]) -> dict[str, str]:
        among, value = self._among("visitor_id", visitor_ids)
        rows = self._rows(f"SELECT visitor_id, user_id FROM identities WHERE {among}", (value,))
        return dict(rows)  # type: ignore[arg-type]

    def read_erasures(self) -> list[Erasure]:
        return [Erasure(*row) for row in self._rows("SELECT person, user_id, time FROM erasures ORDER BY time, person")]

    # -- catalog changes ------------------------------------------------------------------------------------

    def read_changes(self, after_offset: int = 0, limit: int = 10_000) -> list[CatalogChange]:
        return [read_change(row) for row in self._rows(f"{_CHANGES} {NEXT}", (after_offset, limit))]

    def read_changes_of(self, kind: Literal["item", "user"], ids: Sequence[str]) -> list[CatalogChange]:
        among, value = self._among("id", ids)
        rows = self._rows(f'{_CHANGES} WHERE kind = ? AND {among} ORDER BY "offset"', (kind, value))
        return [read_change(row) for row in rows]

    def last_change_offset(self) -> int:
        return self._last_offset("catalog_changes")

    # -- access ---------------------------------------------------------------------------------------------

    def read_keys(self, after_offset: int = 0) -> list[ApiKey]:
        rows = self._rows(f'{_KEYS} WHERE "offset" > ? ORDER BY "offset"', (after_offset,))
        return [read_key(row) for row in rows]

    def read_usage(self, day: int) -> dict[str, int]:
        return {key: int(n) for key, n in self._rows("SELECT key_id, requests FROM key_usage WHERE day = ?", (day,))}

    def find_audit_offset(self, before_us: int) -> int:
        return int(self._rows('SELECT coalesce(max("offset"), 0) FROM audit WHERE time_us < ?', (before_us,))[0][0])

    def read_audit(self, after_offset: int = 0, limit: int = 10_000) -> list[AuditEntry]:
        return [AuditEntry(*row) for row in self._rows(f"{_AUDIT} {NEXT}", (after_offset, limit))]

    # -- the store ------------------------------------------------------------------------------------------

    def read_position(self, name: str) -> int:
        rows = self._rows('SELECT "offset" FROM positions WHERE name = ?', (name,))
        return int(rows[0][0]) if rows else 0

    def measure(self) -> dict[str, int]:
        rows = self._rows(" UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in MEASURED))
        return {"bytes": self._count_bytes()} | dict.fromkeys(MEASURED, 0) | {table: int(n) for table, n in rows}

    def _last_offset(self, table: str) -> int:
        rows = self._rows("SELECT last FROM offsets WHERE name = ?", (table,))
        return int(rows[0][0]) if rows else 0
