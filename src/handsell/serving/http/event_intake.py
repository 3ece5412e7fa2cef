"""POST /v1/events: validate events and convert them to rows of the event log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.clock import Clock
from handsell.core.errors import RequestError
from handsell.serving.http import schemas
from handsell.serving.http.answers import RejectedEvent
from handsell.serving.http.queries import make_user_key, new_id

AHEAD_US = 300_000_000  # a caller's clock may be this far ahead; such events count as now
YEAR_2000_US = schemas.YEAR_2000_S * 1_000_000


@dataclass(frozen=True, slots=True)
class ValidatedEvents:
    """Rows for the log (dicts of events.log.EVENT_FIELDS), rejected events, and the number of unknown items."""

    rows: list[dict[str, Any]]
    rejected: list[RejectedEvent]
    unknown_items: int


def validate_events(body: schemas.EventsBody, config: Config, snapshot: Snapshot, clock: Clock) -> ValidatedEvents:
    """Accept events with a known type, a user and a plausible time; reject others one by one.

    The item of an event may be missing from the catalog.
    """
    most = config.serving.max_events
    if len(body.events) > most:
        raise RequestError(
            f"events: expected at most {most} in one request, got {len(body.events)}: send them in parts",
            field="events", status=413, code="too_many_events",
        )  # fmt: skip
    now, names = clock.now(), config.events.names
    earliest = 0 if config.serving.events_before_2000 else YEAR_2000_US
    rows: list[dict[str, Any]] = []
    rejected: list[RejectedEvent] = []
    for index, event in enumerate(body.validated):
        problem = _find_problem(event, names, earliest, clock, now)
        if problem is None:
            rows.append(_row(cast(schemas.Event, event), clock, now))
        else:
            code, field, detail = problem
            rejected.append(RejectedEvent(index=index, code=code, field=field, detail=detail))
    numbers = snapshot.items.number([row["item_id"] for row in rows])
    return ValidatedEvents(rows, rejected, int(np.count_nonzero(numbers == NONE)))


def _find_problem(
    event: schemas.Event | schemas.InvalidEntry, names: Sequence[str], earliest: int, clock: Clock, now: int
) -> tuple[str, str, str] | None:
    """Return code, field and detail of the reason to reject an event, if there is one."""
    if isinstance(event, schemas.InvalidEntry):
        return "invalid_event", event.field, event.detail
    if event.type not in names:
        return "unknown_event_type", "type", f"type: expected one of {', '.join(names)}; got {event.type!r}"
    if event.user_id is None and event.anonymous_id is None:
        return "no_user", "user_id", "user_id: expected user_id or anonymous_id; got neither"
    if event.timestamp is None:
        return None
    if event.timestamp < earliest:
        detail = (
            f"timestamp: expected a time since 2000; got {event.timestamp // 1_000} ms after 1970-01-01: check that "
            "it is in milliseconds, or set serving.events_before_2000 for historic events"
        )
        return "before_2000", "timestamp", detail
    if clock.from_wall(event.timestamp) > now + AHEAD_US:
        return "in_the_future", "timestamp", "timestamp: expected now or earlier; got one over 5 minutes ahead"
    return None


def _row(event: schemas.Event, clock: Clock, now: int) -> dict[str, Any]:
    """Return the row for the log. An event without id and timestamp gets an id, so that it is no duplicate."""
    sent = None if event.timestamp is None else clock.from_wall(event.timestamp)
    return {
        "event_id": event.event_id or (new_id() if sent is None else None),
        "user_id": make_user_key(event.user_id, event.anonymous_id),
        "item_id": event.item_id,
        "type": event.type,
        "time": now if sent is None else min(sent, now),
        "sent_time": sent,
        "value": event.value,
        "surface": event.surface,
        "recommendation_id": event.recommendation_id,
        "position": event.position,
    }
