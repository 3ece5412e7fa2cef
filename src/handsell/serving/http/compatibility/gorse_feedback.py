"""Feedback of Gorse's API: events of the event store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from handsell.core.errors import DataError, RequestError
from handsell.data.catalog_fields import convert_value
from handsell.data.schemas import TIME
from handsell.events.store.interface import Columns, EventReader
from handsell.migration.gorse.fields import build_event
from handsell.migration.values import is_no_time
from handsell.serving.graph.service import Service
from handsell.serving.http import schemas as s
from handsell.serving.http.compatibility.gorse_schemas import (
    GorseFeedback,
    GorseFeedbackBody,
    GorseFeedbackPage,
    GorsePageParameters,
    GorseSuccess,
)
from handsell.serving.http.event_intake import validate_events
from handsell.serving.http.metadata import format_time
from handsell.serving.http.problems import describe_errors, summarize_errors

SCANNED, SCANS = 5_000, 10  # rows of one read, and reads for one page, which may be short
KEPT = ("FeedbackType", "UserId", "ItemId", "Timestamp", "Value")
B = TypeVar("B", bound=BaseModel)
NAMES = {"type": "FeedbackType", "user_id": "UserId", "item_id": "ItemId", "timestamp": "Timestamp", "value": "Value"}


class GorseFeedbackCalls:
    """Stores and lists feedback of a service."""

    def __init__(self, service: Service):
        self._service = service

    async def insert(self, given: Sequence[GorseFeedbackBody]) -> GorseSuccess:
        """Store all of them, or none: raises RequestError (400) where one is no event."""
        if not given:
            return GorseSuccess(RowAffected=0)
        body = parse_body(s.EventsBody, {"events": [build_body(one, f"[{index}]") for index, one in enumerate(given)]})
        bundle = self._service.bundle
        if rejected := validate_events(body, bundle.config, bundle.snapshot, bundle.clock).rejected:
            first = rejected[0]
            name = NAMES.get(first.field, first.field)
            raise RequestError(
                f"[{first.index}].{name}: {first.detail.partition(': ')[2] or first.detail}; nothing was stored",
                field=f"[{first.index}].{name}", status=400, code=first.code,
            )  # fmt: skip
        done = await self._service.events(body)
        dropped = {name for one in given for name, value in one.record.items() if name not in KEPT and value}
        more = {"NotKept": sorted(dropped)} if dropped else {}
        return GorseSuccess(RowAffected=done.accepted + done.duplicates, **more)

    async def list_page(self, query: GorsePageParameters, kind: str | None = None) -> GorseFeedbackPage:
        """List the events that the event store still has, of one type if it is given."""
        after, limit = read_cursor(query.cursor), query.n if kind is None else SCANNED
        found: list[GorseFeedback] = []
        for _ in range(SCANS):
            columns = await self._read(partial(_scan, after, limit))
            for offset, one in zip(columns["offset"], _describe(columns), strict=True):
                after = offset
                if kind in (None, one.FeedbackType):
                    found.append(one)
                if len(found) == query.n:
                    return GorseFeedbackPage(Cursor=str(after), Feedback=found)
            if len(columns["offset"]) < limit:
                return GorseFeedbackPage(Cursor="", Feedback=found)
        return GorseFeedbackPage(Cursor=str(after), Feedback=found)

    async def list_of_user(self, user_id: str, kind: str | None, item_id: str | None) -> list[GorseFeedback]:
        """List a user's newest events, newest first; of one type or item if it is given."""
        known = self._service.identities.find_user(user_id) or user_id
        columns = await self._read(lambda reader: reader.read_tail(known))
        return [
            one for one in reversed(_describe(columns))
            if kind in (None, one.FeedbackType) and item_id in (None, one.ItemId)
        ]  # fmt: skip

    async def _read(self, read: Callable[[EventReader], Columns]) -> Columns:
        return await self._service.changes.query(read)


def build_body(given: GorseFeedbackBody, place: str) -> dict[str, Any]:
    """Return an event of the API; raises RequestError (400) for a time that cannot be read."""
    event = build_event(given.record)
    timestamp = read_time(event.pop("time"), f"{place}.Timestamp")
    event = {name: str(v) if type(v) is int and name != "value" else v for name, v in event.items() if v is not None}
    return event if timestamp is None else {**event, "timestamp": timestamp}


def parse_body(model: type[B], fields: Mapping[str, Any]) -> B:
    """Validate the fields of a body of the API; raises RequestError (400)."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = describe_errors(error.errors(), skip=0)
        raise RequestError(
            summarize_errors(found), field=found[0]["field"], status=400, code="invalid_request"
        ) from None


def read_time(value: Any, place: str) -> str | None:
    """Return a time as the API has it; None for none. Raises RequestError (400)."""
    if is_no_time(value):
        return None
    try:
        us = convert_value("Timestamp", value, TIME)
    except DataError as error:
        raise RequestError(f"{place}: {error}", field=place, status=400, code="invalid_time") from None
    return None if us is None else format_time(us)


def read_cursor(cursor: str) -> int:
    """Return the place after which a page begins; raises RequestError (400)."""
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise RequestError(
            f"cursor: expected the Cursor of an earlier answer, got {cursor!r:.40}", field="cursor", status=400,
            code="invalid_cursor",
        )  # fmt: skip
    return int(cursor or 0)


def _scan(after: int, limit: int, reader: EventReader) -> Columns:
    return reader.scan(after, limit)


def _describe(columns: Columns) -> list[GorseFeedback]:
    rows = zip(*(columns[name] for name in ("type", "user_id", "item_id", "value", "time")), strict=True)
    return [
        GorseFeedback(
            FeedbackType=kind,
            UserId=user,
            ItemId=item,
            Value=value or 0.0,
            Timestamp=format_time(time) or "",
            Comment="",
        )
        for kind, user, item, value, time in rows
    ]
