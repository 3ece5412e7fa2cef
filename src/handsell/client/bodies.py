"""Bodies and queries of the HTTP API; written by clients/make_models.py from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict


class Basket(TypedDict):
    # the last added last
    item_ids: list[str]


class BlocksBody(TypedDict):
    creators: NotRequired[list[str]]
    tags: NotRequired[list[str]]


class Event(TypedDict):
    # events equal in user, item, type, timestamp and event_id count once; without a timestamp, the id tells a
    # repeated delivery from a new event
    event_id: NotRequired[str | None]
    type: str
    user_id: NotRequired[str | None]
    anonymous_id: NotRequired[str | None]
    item_id: str
    # default: now
    timestamp: NotRequired[str | float | None]
    # rating, seconds, price …
    value: NotRequired[float | None]
    surface: NotRequired[str | None]
    # of the answer that showed the item
    recommendation_id: NotRequired[str | None]
    position: NotRequired[int | None]


class EventsBody(TypedDict):
    # an invalid event is rejected by its index, the others are stored
    events: list[Event]


class ExplainParameters(TypedDict):
    # an unknown user is a cold start, not an error
    user_id: str
    item_id: str
    surface: NotRequired[str]
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    # contributions listed, the largest first
    features: NotRequired[int]


class ExplainPreviewParameters(TypedDict):
    # an unknown user is a cold start, not an error
    user_id: str
    surface: NotRequired[str]
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    # items similar to this one instead, as `GET /v1/similar`, whoever the user is
    similar_to: NotRequired[str | None]
    # `live`, or a bundle that this gateway holds: the canary, those of arms
    bundle: NotRequired[str | None]
    # `EXPERIMENT.ARM` whose bundle and settings are used
    arm: NotRequired[str | None]
    # instead of `reranking.diversity` times strength
    diversity: NotRequired[float | None]
    # instead of `reranking.novelty` times strength
    novelty: NotRequired[float | None]
    # instead of `reranking.exploration.share`
    exploration: NotRequired[float | None]
    # `TYPE:ITEM_ID`, or `TYPE=VALUE:ITEM_ID`, as if the user had just done this, the oldest first; nothing is stored
    events: NotRequired[list[str]]
    item_id: str
    # contributions listed, the largest first
    features: NotRequired[int]


ItemBody = Mapping[str, Any]
"""Fields title, creators, tags, text, published_at, expires_at, available, item_id, and further columns."""


class ItemsBody(TypedDict):
    # at most 1000; an invalid one is rejected by its index, the others are stored
    items: list[ListedItem]


ListedItem = Mapping[str, Any]
"""Fields title, creators, tags, text, published_at, expires_at, available, item_id, and further columns."""


ListedUser = Mapping[str, Any]
"""Fields user_id, and further columns."""


class MergeBody(TypedDict):
    # the `anonymous_id` of earlier requests and events
    visitor_id: str
    # who the visitor turned out to be
    user_id: str


class OnboardingBody(TypedDict):
    # stored events of this user count as answers; an unknown user has none
    user_id: NotRequired[str | None]
    # a visitor without an account; ignored beside a user_id
    anonymous_id: NotRequired[str | None]
    # answers that need not be in the event log
    session: NotRequired[VisitorSession | None]
    # questions wanted; fewer if no more items may be asked about
    n: NotRequired[int]
    # a surface of the configuration, whose rules of eligibility hold
    surface: NotRequired[str]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    # items asked about without an answer, and others
    exclude: NotRequired[RequestExclusions | None]
    include: NotRequired[list[Literal["metadata"]]]
    # stages that answer later are left out; at most the service's own deadline
    deadline_ms: NotRequired[int | None]


class PopularParameters(TypedDict):
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    include: NotRequired[list[Literal["metadata"]]]


class PreviewParameters(TypedDict):
    # an unknown user is a cold start, not an error
    user_id: str
    surface: NotRequired[str]
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    # items similar to this one instead, as `GET /v1/similar`, whoever the user is
    similar_to: NotRequired[str | None]
    # `live`, or a bundle that this gateway holds: the canary, those of arms
    bundle: NotRequired[str | None]
    # `EXPERIMENT.ARM` whose bundle and settings are used
    arm: NotRequired[str | None]
    # instead of `reranking.diversity` times strength
    diversity: NotRequired[float | None]
    # instead of `reranking.novelty` times strength
    novelty: NotRequired[float | None]
    # instead of `reranking.exploration.share`
    exploration: NotRequired[float | None]
    # `TYPE:ITEM_ID`, or `TYPE=VALUE:ITEM_ID`, as if the user had just done this, the oldest first; nothing is stored
    events: NotRequired[list[str]]


class RankBody(TypedDict):
    user_id: NotRequired[str | None]
    anonymous_id: NotRequired[str | None]
    session: NotRequired[VisitorSession | None]
    surface: NotRequired[str]
    # the caller's id of the current session, by which experiments on sessions assign arms
    session_id: NotRequired[str | None]
    item_ids: list[str]
    # so many of the first items will be shown: they are logged as an impression, on surface `rank`; the answer has
    # its `recommendation_id`
    shown: NotRequired[int | None]
    # stages that answer later are left out; at most the service's own deadline
    deadline_ms: NotRequired[int | None]


class RecommendationsBody(TypedDict):
    # an unknown user is a cold start, not an error
    user_id: NotRequired[str | None]
    # a visitor without an account; ignored beside a user_id
    anonymous_id: NotRequired[str | None]
    session: NotRequired[VisitorSession | None]
    # the caller's id of the current session, by which experiments on sessions assign arms
    session_id: NotRequired[str | None]
    basket: NotRequired[Basket | None]
    # a surface of the configuration
    surface: NotRequired[str]
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    exclude: NotRequired[RequestExclusions | None]
    # `next_cursor` of the previous page
    cursor: NotRequired[str | None]
    include: NotRequired[list[Literal["metadata", "debug"]]]
    # stages that answer later are left out; at most the service's own deadline
    deadline_ms: NotRequired[int | None]


class RequestExclusions(TypedDict):
    item_ids: NotRequired[list[str]]
    # exclude items by these creators
    creators: NotRequired[list[str]]
    # exclude items with one of these tags
    tags: NotRequired[list[str]]


class SessionEvent(TypedDict):
    # an event type of the configuration
    type: str
    item_id: str
    # default: now
    timestamp: NotRequired[str | float | None]
    # rating, seconds, price …
    value: NotRequired[float | None]


class SimilarParameters(TypedDict):
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    include: NotRequired[list[Literal["metadata", "debug"]]]
    # `next_cursor` of the previous page
    cursor: NotRequired[str | None]
    # to whom it is shown: decides arms of experiments, not items
    user_id: NotRequired[str | None]
    # a visitor without an account; ignored beside a user_id
    anonymous_id: NotRequired[str | None]
    # the caller's id of the current session, by which experiments on sessions assign arms
    session_id: NotRequired[str | None]
    item_id: str


class TrendingParameters(TypedDict):
    # items wanted, at most `serving.max_count` (default 30); by default the count of the surface (default 10), for
    # public lists that of `home`
    count: NotRequired[int | None]
    # expression that every item must pass, such as `item.year >= 2015 and not item.explicit`
    filter: NotRequired[str | None]
    include: NotRequired[list[Literal["metadata"]]]


UserBody = Mapping[str, Any]
"""Fields user_id, and further columns."""


class UsersBody(TypedDict):
    # at most 1000; an invalid one is rejected by its index, the others are stored
    users: list[ListedUser]


class VisitorSession(TypedDict):
    # oldest first
    events: list[SessionEvent]
