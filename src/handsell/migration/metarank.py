"""Read events of Metarank: JSON lines of item, user, ranking and interaction events.

| Metarank | here |
|---|---|
| item, user | a row; later events change the fields that they name |
| ranking | an event of type `impression` for each item, with its position and the ranking's id |
| interaction | an event of its type, with the ranking's id; `value` from a field of this name |

The user of an event is `user`, else `session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from handsell.migration.source_files import find_files, read_objects
from handsell.migration.tables import ImportTables
from handsell.migration.tally import SourcePlace, Tally
from handsell.migration.values import read_number

IMPRESSION = "impression"
KNOWN = {
    "item": {"event", "id", "timestamp", "item", "fields"},
    "user": {"event", "id", "timestamp", "user", "fields"},
    "ranking": {"event", "id", "timestamp", "user", "session", "fields", "items"},
    "interaction": {"event", "id", "timestamp", "user", "session", "type", "item", "ranking", "fields"},
}


def import_metarank(source: str, tables: ImportTables, columns: Mapping[str, str]) -> None:
    """Read all files of a source; `columns`: canonical column of an item → name of its field."""
    names = {field: canonical for canonical, field in columns.items()}
    for file in find_files(source):
        for record, place in read_objects(file, tables.tally):
            _add(tables, record, place, names)


def _add(tables: ImportTables, record: dict[str, Any], place: SourcePlace, names: Mapping[str, str]) -> None:
    tally, kind = tables.tally, record.get("event")
    if not isinstance(kind, str) or kind not in KNOWN:
        tally.read["other"] += 1
        tally.skip("other", f"a record whose event is none of {', '.join(KNOWN)}", place)
        return
    others = {name: value for name, value in record.items() if name not in KNOWN[kind]}
    if kind == "ranking":
        _add_ranking(tables, record, others, place)
        return
    fields = _read_fields(record.get("fields"))
    if fields is None:
        tally.drop("events" if kind == "interaction" else f"{kind}s", "fields that are no list of names and values")
        fields = {}
    if kind == "interaction":
        _add_interaction(tables, record, fields, others, place)
        return
    tally.read["items" if kind == "item" else "users"] += 1
    spool = tables.items if kind == "item" else tables.users
    renamed = {names.get(name, name): value for name, value in fields.items()} if kind == "item" else fields
    spool.add(record.get(kind), {**others, **renamed}, place, _read_order(record.get("timestamp")), replace=False)


def _add_ranking(tables: ImportTables, record: dict[str, Any], others: dict[str, Any], place: SourcePlace) -> None:
    items, tally = record.get("items"), tables.tally
    if not isinstance(items, list) or not items:
        tally.read["other"] += 1
        tally.skip("other", "a ranking without items", place)
        return
    _drop(tally, {**others, **(_read_fields(record.get("fields")) or {})})
    for position, item in enumerate(items, start=1):
        entry = item if isinstance(item, dict) else {"id": item}
        _drop(tally, {name: value for name, value in entry.items() if name != "id"})
        tally.read["events"] += 1
        tables.events.add(
            {
                "user_id": _find_user(record),
                "item_id": entry.get("id"),
                "type": IMPRESSION,
                "time": record.get("timestamp"),
                "recommendation_id": record.get("id"),
                "position": position,
            },
            place,
        )


def _add_interaction(
    tables: ImportTables, record: dict[str, Any], fields: dict[str, Any], others: dict[str, Any], place: SourcePlace
) -> None:
    value = fields.get("value")
    _drop(tables.tally, {**others, **{name: v for name, v in fields.items() if name != "value"}})
    tables.tally.read["events"] += 1
    tables.events.add(
        {
            "event_id": record.get("id"),
            "user_id": _find_user(record),
            "item_id": record.get("item"),
            "type": record.get("type"),
            "time": record.get("timestamp"),
            "value": value,
            "recommendation_id": record.get("ranking"),
        },
        place,
    )


def _find_user(record: Mapping[str, Any]) -> Any:
    user = record.get("user")
    return record.get("session") if user is None or user == "" else user


def _read_fields(fields: Any) -> dict[str, Any] | None:
    """Return the fields by name; None for what is no list of them."""
    if fields is None:
        return {}
    if isinstance(fields, dict):
        return fields
    if not isinstance(fields, list) or not all(isinstance(f, dict) and isinstance(f.get("name"), str) for f in fields):
        return None
    return {field["name"]: field.get("value") for field in fields}


def _read_order(timestamp: Any) -> float:
    """Return the epoch milliseconds that order the updates of a row, 0 where they are unknown."""
    if (number := read_number(timestamp)) is not None:
        return number
    try:
        return datetime.fromisoformat(str(timestamp).strip()).timestamp() * 1_000
    except (ValueError, OverflowError):
        return 0


def _drop(tally: Tally, fields: Mapping[str, Any]) -> None:
    for name in fields:
        tally.drop("events", name)
