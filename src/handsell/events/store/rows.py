"""Rows of the event store: events with their keys, slates and changes as tuples, and columns of what was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from handsell.core.hashing import hash_column
from handsell.data.event_key import EVENT_KEY, compute_event_keys, replace_users
from handsell.events.store.interface import EVENT_FIELDS, SLATE_FIELDS, CatalogChange, Columns

EVENT_COLUMNS = ("offset", *EVENT_FIELDS, "key")
SLATE_COLUMNS = ("offset", *SLATE_FIELDS)
CHANGE_COLUMNS = ("offset", "kind", "id", "action", "fields", "time")
IMPRESSION_FIELDS = ("item_id", "score", "propensity", "sources")
EXPERIMENT_FIELDS = ("arms", "stopped", "units", "interleaved")
"""Of a slate: arm by experiment; by experiment the arm that is stopped, so that control was given; ids of units that
are not the user, by experiment; the experiment whose two arms share the slate."""
_TYPES = {name: pa.int64() if name == "time" else pa.string() for name in EVENT_KEY}


def compute_keys(events: Sequence[dict[str, Any]]) -> list[int]:
    """Return the key of each event; the keys of many events are computed at once."""
    if not events:
        return []
    columns = {name: [event.get(name) for event in events] for name in EVENT_KEY}
    columns["time"] = [event.get("sent_time", event["time"]) for event in events]
    return compute_event_keys({name: pa.array(column, _TYPES[name]) for name, column in columns.items()}).tolist()


def replace_user(keys: Sequence[int], events: Sequence[dict[str, Any]], before: str) -> list[int]:
    """Return the keys of events whose `user_id` was `before` when their keys were computed."""
    columns = {name: pa.array([event[name] for event in events], _TYPES[name]) for name in EVENT_KEY}
    users, ids = columns.pop("user_id"), hash_column(columns["event_id"])
    former = {**columns, "user_id": pa.array([before] * len(events), pa.string())}
    return replace_users(np.array(keys, np.int64), former, users, ids).tolist()


def build_event_row(event: dict[str, Any], offset: int, key: int) -> tuple:
    return (offset, *map(event.get, EVENT_FIELDS), key)


def build_slate(slate: dict[str, Any]) -> tuple:
    """Return the cells of SLATE_FIELDS."""
    return tuple(slate[name] for name in SLATE_FIELDS)


def build_change(change: CatalogChange) -> tuple:
    return (change.kind, change.id, change.action, json.dumps(change.fields, ensure_ascii=False), change.time)


def read_change(row: tuple) -> CatalogChange:
    """Return the change of a row of CHANGE_COLUMNS."""
    offset, kind, id, action, fields, time = row
    return CatalogChange(kind, id, action, json.loads(fields), time, offset)


def build_columns(rows: Sequence[tuple], names: Sequence[str]) -> Columns:
    values = zip(*rows, strict=True) if rows else [()] * len(names)
    return {name: list(column) for name, column in zip(names, values, strict=True)}


def build_impressions(slates: Sequence[tuple]) -> Columns:
    """Return one row per item of slates, rows of SLATE_COLUMNS, with its position (1 = top)."""
    of_slate = SLATE_COLUMNS[:-1]
    columns: Columns = {name: [] for name in (*of_slate, "item_id", "position", "score", "propensity", "sources")}
    columns |= {name: [] for name in ("rules", *EXPERIMENT_FIELDS, "teams")}
    for *slate, items in slates:
        shown = json.loads(items)
        n = len(shown["item_id"])
        for name, value in zip(of_slate, slate, strict=True):
            columns[name] += [value] * n
        columns["position"] += range(1, n + 1)
        columns["rules"] += [shown.get("rules")] * n  # version of the business rules, or None
        for name in EXPERIMENT_FIELDS:
            columns[name] += [_encode(shown.get(name))] * n
        columns["teams"] += shown.get("teams") or [None] * n  # arm that brought each item of an interleaved slate
        for name in IMPRESSION_FIELDS:
            columns[name] += shown[name]
    return columns


def _encode(value: Any) -> str | None:
    """Return tables as JSON, texts as they are."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def hash_person(user_id: str) -> str:
    """Return the SHA-256 of a user id, by which an erased person stays known."""
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def hash_owner(user_id: str) -> int:
    """Return 64 bits of the hash of a user id: whose event a key belonged to."""
    return int.from_bytes(bytes.fromhex(hash_person(user_id))[:8], "big", signed=True)
