"""Events in the format of User Behavior Insights (UBI 1.0 to 1.3), converted to events of the API.

| UBI | here |
|---|---|
| action_name | `type`, by `serving.ubi_types` where it lists the name |
| query_id | `recommendation_id` |
| user_id, or event_attributes.user_id | `user_id` |
| client_id | `anonymous_id` |
| event_attributes.object.object_id | `item_id` |
| event_attributes.position.ordinal, or its `index` | `position`, 1 = top |
| timestamp | `timestamp`; without a zone, UTC |
| event_attributes.value | `value` |
| application | `surface`, if it is the name of one |

Other fields are named in the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from handsell.serving.http.answers import RejectedEvent

WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?", re.ASCII)
MOST_POSITION = 10_000
MOST_NAMES = 50
NAMES = {
    "type": "action_name",
    "recommendation_id": "query_id",
    "anonymous_id": "client_id",
    "item_id": "event_attributes.object.object_id",
    "position": "event_attributes.position.ordinal",
    "value": "event_attributes.value",
}
READ = {"action_name", "query_id", "user_id", "client_id", "timestamp", "event_attributes"}


class UbiConversion:
    """Converts the events of one request; counts what has no place."""

    def __init__(self, types: Mapping[str, str], surfaces: Sequence[str]):
        self._types, self._surfaces = types, surfaces
        self.not_kept = Counter[str]()

    def convert(self, given: Any) -> Any:
        """Return an event of the API, in whatever notation the fields are; what is no object stays as it is."""
        if not isinstance(given, dict):
            return given
        attributes = given.get("event_attributes")
        attributes = attributes if isinstance(attributes, dict) else {}
        target, position = attributes.get("object"), attributes.get("position")
        target = target if isinstance(target, dict) else {}
        kind = given.get("action_name")
        application = given.get("application")
        is_surface = isinstance(application, str) and application in self._surfaces
        event = {
            "type": self._types.get(kind, kind) if isinstance(kind, str) else kind,
            "recommendation_id": _drop_empty(given.get("query_id")),
            "user_id": _to_id(_drop_empty(given.get("user_id")) or _drop_empty(attributes.get("user_id"))),
            "anonymous_id": _to_id(_drop_empty(given.get("client_id"))),
            "item_id": _to_id(_drop_empty(target.get("object_id"))),
            "position": self._read_position(position),
            "timestamp": _read_time(given.get("timestamp")),
            "value": attributes.get("value"),
            "surface": application if is_surface else None,
        }
        self._count(_list_others(given, attributes, target, position, is_surface))
        return {name: value for name, value in event.items() if value is not None}

    def _read_position(self, position: Any) -> int | None:
        ordinal = position.get("ordinal") if isinstance(position, dict) else None
        ordinal = ordinal.get("index") if isinstance(ordinal, dict) else ordinal
        if ordinal is None:
            return None
        if isinstance(ordinal, float) and ordinal.is_integer():
            ordinal = int(ordinal)
        if isinstance(ordinal, int) and not isinstance(ordinal, bool) and 1 <= ordinal <= MOST_POSITION:
            return ordinal
        self._count([f"event_attributes.position.ordinal that is not 1 to {MOST_POSITION}"])
        return None

    def _count(self, names: Iterator[str] | Sequence[str]) -> None:
        for name in names:
            known = name in self.not_kept or len(self.not_kept) < MOST_NAMES
            self.not_kept[name[:200] if known else "other fields"] += 1


def rename_field(rejected: RejectedEvent) -> RejectedEvent:
    """Return a rejection with UBI's name of the field."""
    name = NAMES.get(rejected.field, rejected.field)
    detail = f"{name}{rejected.detail.removeprefix(rejected.field)}" if rejected.field else rejected.detail
    return RejectedEvent(index=rejected.index, code=rejected.code, field=name, detail=detail)


def _list_others(
    given: Mapping[str, Any], attributes: Mapping[str, Any], target: Mapping[str, Any], position: Any, is_surface: bool
) -> Iterator[str]:
    """Yield the names of the fields with a value that have no place."""
    yield from _list_filled(given, READ | ({"application"} if is_surface else set()), "")
    yield from _list_filled(attributes, {"object", "position", "user_id", "value"}, "event_attributes.")
    yield from _list_filled(target, {"object_id"}, "event_attributes.object.")
    if isinstance(position, dict):
        yield from _list_filled(position, {"ordinal"}, "event_attributes.position.")


def _list_filled(fields: Mapping[str, Any], known: set[str], prefix: str) -> Iterator[str]:
    yield from (
        prefix + name for name, value in fields.items() if name not in known and value not in (None, "", {}, [])
    )


def _drop_empty(value: Any) -> Any:
    return None if value == "" else value


def _to_id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _read_time(value: Any) -> Any:
    if isinstance(value, str) and WITHOUT_ZONE.fullmatch(value):
        return value + "Z"
    return _drop_empty(value)
