"""Bodies and parameters of the HTTP API (v1); unknown fields are refused. Answers: answers.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from handsell.data.schemas import ID_CHARACTERS
from handsell.eligibility.config import LONGEST_FILTER
from handsell.serving.http.paging import LONGEST
from handsell.serving.http.problems import describe_errors, summarize_errors

NO_CONTROL = r"^[^\x00-\x1f\x7f]+$"
"""Ids are opaque, but a control character in one is a mistake, and NumPy would cut an id at NUL."""

YEAR_2000_S, YEAR_2200_S = 946_684_800, 7_258_118_400
YEAR_2200_MS = YEAR_2200_S * 1_000
OTHER_UNITS = {"seconds": 1, "microseconds": 1_000_000, "nanoseconds": 1_000_000_000}  # units per second
EXPECTED_TIME = "expected epoch milliseconds or RFC 3339 with a zone, such as 2026-06-30T12:00:00Z, up to 2200"
NUMBER = re.compile(r"^-?\d+(\.\d+)?$", re.ASCII)
RFC3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$", re.ASCII)


def _id(value: str) -> str:
    if not value.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("expected no control characters")
    return value


def _find_other_unit(number: float) -> str | None:
    """Return the unit other than milliseconds in which the number is a time between 2000 and 2200."""
    return next((u for u, per_s in OTHER_UNITS.items() if YEAR_2000_S <= number / per_s <= YEAR_2200_S), None)


def _timestamp(value: Any) -> int:
    """Convert RFC 3339 text with a zone, or epoch milliseconds, to µs."""
    if type(value) is int and YEAR_2200_S < value <= YEAR_2200_MS:
        return value * 1_000  # nearly every event: too late for seconds, too early for microseconds
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if unit := _find_other_unit(value):
            raise ValueError(f"{EXPECTED_TIME}; this number looks like epoch {unit}")
        if 0 <= value <= YEAR_2200_MS:
            return round(value * 1_000)
    if isinstance(value, str) and len(value) <= 40 and RFC3339.match(value):
        try:
            parsed = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper()))
            us = round((parsed - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
        except (ValueError, OverflowError):
            us = -1
        if 0 <= us <= YEAR_2200_MS * 1_000:
            return us
    if isinstance(value, str) and len(value) <= 40 and NUMBER.match(value):
        unit = _find_other_unit(float(value)) or "milliseconds"
        raise ValueError(f"{EXPECTED_TIME}; this looks like epoch {unit} as text")
    raise ValueError(EXPECTED_TIME)


Id = Annotated[
    str,
    Field(min_length=1, max_length=ID_CHARACTERS, json_schema_extra={"pattern": NO_CONTROL}),
    AfterValidator(_id),
]
ShortId = Annotated[
    str, Field(min_length=1, max_length=64, json_schema_extra={"pattern": NO_CONTROL}), AfterValidator(_id)
]
Timestamp = Annotated[
    int,
    BeforeValidator(_timestamp),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "number", "minimum": 0, "maximum": YEAR_2200_MS},
            ],
            "description": "RFC 3339 with a zone, or epoch milliseconds. Numbers that look like epoch seconds "
            "(946684800 to 7258118400) are refused",
        }
    ),
]
Count = Annotated[
    int,
    Field(
        ge=1,
        le=30,
        description="items wanted, at most `serving.max_count` (default 30); by default the count of the surface "
        "(default 10), for public lists that of `home`",
    ),
]
DeadlineMs = Annotated[
    int,
    Field(ge=10, le=60_000, description="stages that answer later are left out; at most the service's own deadline"),
]
Filter = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_FILTER,
        description="expression that every item must pass, such as `item.year >= 2015 and not item.explicit`",
    ),
]
Cursor = Annotated[str, Field(min_length=1, max_length=LONGEST, description="`next_cursor` of the previous page")]
SessionId = Annotated[
    Id, Field(description="the caller's id of the current session, by which experiments on sessions assign arms")
]
Value = Annotated[float, Field(allow_inf_nan=False, ge=-3e38, le=3e38)]
Include = Literal["metadata"]
SlateInclude = Literal["metadata", "debug"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Parameters(BaseModel):
    """Query strings are text, so values are converted."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionEvent(Body):
    """An event of the current session that need not be in the event log."""

    type: ShortId = Field(description="an event type of the configuration")
    item_id: Id
    timestamp: Timestamp | None = Field(default=None, description="default: now")
    value: Value | None = Field(default=None, description="rating, seconds, price …")


class VisitorSession(Body):
    events: list[SessionEvent] = Field(max_length=200, description="oldest first")


class RequestExclusions(Body):
    item_ids: list[Id] = Field(default_factory=list, max_length=1_000)
    creators: list[Id] = Field(default_factory=list, max_length=1_000, description="exclude items by these creators")
    tags: list[Id] = Field(default_factory=list, max_length=1_000, description="exclude items with one of these tags")


class BlocksBody(Body):
    """Creators and tags that are never shown to a user, on any surface; replaces earlier blocks."""

    creators: list[Id] = Field(default_factory=list, max_length=1_000)
    tags: list[Id] = Field(default_factory=list, max_length=1_000)


class Basket(Body):
    """Items in the basket: they count as the strongest kind of event, and are excluded from the results."""

    item_ids: list[Id] = Field(min_length=1, max_length=100, description="the last added last")


class RecommendationsBody(Body):
    user_id: Id | None = Field(default=None, description="an unknown user is a cold start, not an error")
    anonymous_id: Id | None = Field(default=None, description="a visitor without an account; ignored beside a user_id")
    session: VisitorSession | None = None
    session_id: SessionId | None = None
    basket: Basket | None = None
    surface: ShortId = Field(default="home", description="a surface of the configuration")
    count: Count | None = None
    filter: Filter | None = None
    exclude: RequestExclusions | None = None
    cursor: Cursor | None = None
    include: list[SlateInclude] = Field(default_factory=list, max_length=4)
    deadline_ms: DeadlineMs | None = None


class RankBody(Body):
    user_id: Id | None = None
    anonymous_id: Id | None = None
    session: VisitorSession | None = None
    surface: ShortId = "home"
    session_id: SessionId | None = None
    item_ids: list[Id] = Field(min_length=1, max_length=1_000)
    shown: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="so many of the first items will be shown: they are logged as an impression, on surface `rank`; "
        "the answer has its `recommendation_id`",
    )
    deadline_ms: DeadlineMs | None = None


class Event(Body):
    event_id: Id | None = Field(
        default=None,
        description="events equal in user, item, type, timestamp and event_id count once; without a timestamp, the id "
        "tells a repeated delivery from a new event",
    )
    type: ShortId
    user_id: Id | None = None
    anonymous_id: Id | None = None
    item_id: Id
    timestamp: Timestamp | None = Field(default=None, description="default: now")
    value: Value | None = Field(default=None, description="rating, seconds, price …")
    surface: ShortId | None = None
    recommendation_id: ShortId | None = Field(default=None, description="of the answer that showed the item")
    position: int | None = Field(default=None, ge=1, le=10_000)


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """An entry of a list in a body that does not match its schema."""

    field: str
    detail: str


def keep_invalid(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Validate one entry of a list; an invalid one becomes an InvalidEntry and does not refuse its neighbors."""
    try:
        return validate(value)
    except ValidationError as error:
        fields = describe_errors(error.errors(), skip=0)
        others = f"; {len(fields) - 1} more" if len(fields) > 1 else ""
        return InvalidEntry(fields[0]["field"], summarize_errors(fields) + others)


_EVENT = TypeAdapter(Event)


def _keep_invalid_events(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate all events at once, and one by one only if one of them is invalid."""
    try:
        return validate(value)
    except ValidationError:
        if not isinstance(value, list) or not value:
            raise
    return [keep_invalid(event, _EVENT.validate_python) for event in value]


class EventsBody(Body):
    events: Annotated[list[Event], WrapValidator(_keep_invalid_events)] = Field(
        min_length=1, description="an invalid event is rejected by its index, the others are stored"
    )

    @property
    def validated(self) -> list[Event | InvalidEntry]:
        return cast("list[Event | InvalidEntry]", self.events)


class SlateParameters(Parameters):
    count: Count | None = None
    session_id: SessionId | None = None
    surface: ShortId = "home"
    filter: Filter | None = None
    cursor: Cursor | None = None
    include: Annotated[list[SlateInclude], Field(max_length=4)] = []
    deadline_ms: DeadlineMs | None = None


class UserSlateParameters(SlateParameters):
    user_id: Id | None = Field(default=None, description="an unknown user is a cold start, not an error")
    anonymous_id: Id | None = Field(default=None, description="a visitor without an account; ignored beside a user_id")


class FilteredParameters(Parameters):
    count: Count | None = None
    filter: Filter | None = None


class ListParameters(FilteredParameters):
    include: Annotated[list[Include], Field(max_length=4)] = []


class ExplainParameters(Parameters):
    user_id: Annotated[Id, Field(description="an unknown user is a cold start, not an error")]
    item_id: Id
    surface: ShortId = "home"
    count: Count | None = None
    filter: Filter | None = None
    features: Annotated[int, Field(ge=0, le=200, description="contributions listed, the largest first")] = 10


class SimilarParameters(FilteredParameters):
    include: Annotated[list[SlateInclude], Field(max_length=4)] = []
    cursor: Cursor | None = None
    user_id: Id | None = Field(default=None, description="to whom it is shown: decides arms of experiments, not items")
    anonymous_id: Id | None = Field(default=None, description="a visitor without an account; ignored beside a user_id")
    session_id: SessionId | None = None


class SimilarItemParameters(SimilarParameters):
    item_id: Id
