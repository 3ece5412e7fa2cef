"""Convert request bodies to validated queries: ids become catalog numbers."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from handsell.access.caller import get_key_id
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.clock import Clock
from handsell.core.errors import FilterError, RequestError
from handsell.core.logs.request_trace import RequestTrace, get_trace
from handsell.data.weights import compute_event_weights
from handsell.eligibility.filters import get_filters
from handsell.events.merged_visitors import ANONYMOUS
from handsell.events.states import Events
from handsell.serving.http import schemas
from handsell.serving.http.paging import Feed

NOTHING = np.zeros(0, np.int32)
FIRST = np.zeros(1, np.int32)  # number of the first item
NO_EVENTS = Events.none()


@dataclass(frozen=True, slots=True)
class Query:
    """One validated request. Session events are numbered, in time order, strictly before `time`."""

    recommendation_id: str
    user_id: str | None  # as the event log has it
    surface: int
    count: int
    time: int  # µs, service clock
    arrived: float  # event loop time
    deadline_s: float  # from its arrival
    session: Events
    exclude: np.ndarray  # (X,) int32, with the items on earlier pages of the feed
    feed: Feed
    filter: str | None = None  # checked against the snapshot
    shown: np.ndarray = field(default_factory=lambda: NOTHING)  # (G,) int32 items on earlier pages of the feed
    creators: np.ndarray = field(default_factory=lambda: NOTHING)  # int32 that the caller excludes
    tags: np.ndarray = field(default_factory=lambda: NOTHING)
    items: np.ndarray = field(default_factory=lambda: NOTHING)  # (X,) int32 items to rank or to explain
    arms: tuple[str, ...] = ()  # "experiment=arm"
    overlay: str = ""  # changed settings of these arms, with which the query was parsed
    is_fresh: bool = False  # its answer is computed, whatever is kept
    key_id: str | None = field(default_factory=get_key_id)  # the caller's API key
    origin: RequestTrace = field(default_factory=get_trace)  # the HTTP request that asks

    @property
    def trace(self) -> RequestTrace:
        return self.origin._replace(recommendation_id=self.recommendation_id)


@dataclass(frozen=True)
class QueryParser:
    """Converts request bodies to queries; raises RequestError (4xx) for an invalid field."""

    config: Config
    snapshot: Snapshot
    clock: Clock

    def parse_recommendations(self, body: schemas.RecommendationsBody, arrived: float) -> Query:
        surface, user_id = self.surface(body.surface), make_user_key(body.user_id, body.anonymous_id)
        exclude, shelf = body.exclude or schemas.RequestExclusions(), self.snapshot
        basket = find_known(shelf.items, body.basket.item_ids) if body.basket else NOTHING
        creators, tags = self.substitutes(surface, basket)
        feed = self.feed(body.surface, user_id, body.filter, *(body.basket.item_ids if body.basket else ()))
        shown = feed.decode(body.cursor)
        now = self.clock.now()
        return Query(
            recommendation_id=new_id(),
            user_id=user_id,
            surface=surface,
            count=self.count(body.count, surface),
            time=now,
            arrived=arrived,
            deadline_s=self.deadline_s(body.deadline_ms),
            session=self.session(body.session, now, basket),
            exclude=join_numbers(find_known(shelf.items, exclude.item_ids), basket, shown),
            feed=feed,
            filter=self.filter(body.filter),
            shown=shown,
            creators=join_numbers(find_known(shelf.creators, exclude.creators), creators),
            tags=join_numbers(find_known(shelf.tags, exclude.tags), tags),
        )

    def substitutes(self, surface: int, basket: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the creators and tags whose items count as substitutes of the basket's items on this surface."""
        if not len(basket):
            return NOTHING, NOTHING
        kind = tuple(self.config.surfaces.values())[surface].substitutes
        creators = self.snapshot.creator[basket] if kind == "same_creator" else NOTHING
        tags = [self.snapshot.item_tags.row(int(item)) for item in basket] if kind == "same_tag" else []
        return np.unique(creators[creators != NONE]), np.unique(np.concatenate([NOTHING, *tags]))

    def feed(self, *shared: str | None) -> Feed:
        """A feed of this catalog, which its permanent first item identifies."""
        return Feed.of(*shared, self._first_ids)

    @cached_property
    def _first_ids(self) -> list[str]:
        return self.snapshot.items.ids(FIRST) if len(self.snapshot) else []

    def parse_similar(self, item_id: str, parameters: schemas.SimilarParameters, arrived: float) -> Query:
        """The query of a visitor whose only event is on this item, on surface `similar` where it exists."""
        item = self.find_item(item_id)
        surface = self.surface(find_similar_surface(self.config))
        feed = self.feed("similar", item_id, parameters.filter)
        shown = feed.decode(parameters.cursor)
        now = self.clock.now()
        weight, code = self._weakest_interest()
        session = Events.of([0], item, [code], [now - 1], [weight])
        return Query(
            new_id(), None, surface, self.count(parameters.count, surface), now, arrived, self.deadline_s(None),
            session, exclude=join_numbers(item, shown), feed=feed, filter=self.filter(parameters.filter), shown=shown,
        )  # fmt: skip

    def parse_explain(self, parameters: schemas.ExplainParameters, arrived: float) -> Query:
        """Return the query for a user's slate, with the item to explain in `items`."""
        body = schemas.RecommendationsBody(
            user_id=parameters.user_id, surface=parameters.surface, count=parameters.count, filter=parameters.filter
        )
        return replace(
            self.parse_recommendations(body, arrived), items=self.find_item(parameters.item_id, deleted_too=True)
        )

    def find_item(self, item_id: str, deleted_too: bool = False) -> np.ndarray:
        """(1,) number; raises RequestError (404) for an item that the catalog does not hold, or that was deleted."""
        item = self.snapshot.items.number([item_id])
        if item[0] != NONE and not deleted_too and self.snapshot.is_deleted(item)[0]:
            raise RequestError(
                f"item {item_id!r:.80} has been deleted: GET /v1/popular lists items that are in the catalog",
                field="item_id", status=404, code="unknown_item",
            )  # fmt: skip
        if item[0] == NONE:
            raise RequestError(
                f"item {item_id!r:.80} is not in the catalog of this release: GET /v1/popular lists items that are",
                field="item_id", status=404, code="unknown_item",
            )  # fmt: skip
        return item

    def parse_rank(self, body: schemas.RankBody, arrived: float) -> tuple[Query, list[str]]:
        """Return the query, and the ids that are not in the catalog, deleted ones too."""
        ids = list(dict.fromkeys(body.item_ids))
        numbers = self.snapshot.items.number(ids)
        numbers = np.where(self.snapshot.is_deleted(numbers), NONE, numbers)
        now = self.clock.now()
        query = Query(
            new_id(), make_user_key(body.user_id, body.anonymous_id), self.surface(body.surface), len(ids), now,
            arrived, self.deadline_s(body.deadline_ms), self.session(body.session, now), NOTHING, Feed.of(None),
            items=numbers[numbers != NONE],
        )  # fmt: skip
        return query, [i for i, n in zip(ids, numbers.tolist(), strict=True) if n == NONE]

    def surface(self, name: str) -> int:
        names = self.config.surface_names
        if name not in names:
            raise RequestError(
                f"surface is expected to be one of {', '.join(names)}; got {name!r:.80}",
                field="surface", code="unknown_surface",
            )  # fmt: skip
        return names.index(name)

    def count(self, count: int | None, surface: int) -> int:
        most = self.config.serving.max_count
        wanted = count or min(self.config.surfaces[self.config.surface_names[surface]].count, most)
        if wanted > most:
            raise RequestError(f"count is expected to be 1 to {most}; got {wanted}", field="count")
        return wanted

    def filter(self, expression: str | None) -> str | None:
        """Check a filter expression against this catalog."""
        if expression is not None:
            try:
                get_filters(self.snapshot).check(expression, self.config.features.filter_attributes)
            except FilterError as error:
                raise RequestError(f"filter: {error}", field="filter", code="invalid_filter") from None
        return expression

    def deadline_s(self, wanted_ms: int | None) -> float:
        """The caller's deadline, at most that of the service."""
        most = self.config.serving.deadline_ms
        return min(wanted_ms or most, most) / 1_000

    def session(self, session: schemas.VisitorSession | None, now: int, basket: np.ndarray = NOTHING) -> Events:
        """The session's events, then the basket; an event later than now counts as just now."""
        if session is None and not len(basket):
            return NO_EVENTS
        events = session.events if session else []
        codes = [self._type(event.type, f"session.events.{i}.type") for i, event in enumerate(events)]
        times = [now if e.timestamp is None else min(self.clock.from_wall(e.timestamp), now) for e in events]
        n = len(events) + len(basket)
        types = np.array([*codes, *[self._strongest()] * len(basket)], np.int8)
        values = np.array([np.nan if e.value is None else e.value for e in events] + [np.nan] * len(basket), np.float32)
        times += [now] * len(basket)
        return Events.of(
            np.zeros(n, np.int64),
            np.concatenate([self.snapshot.items.number([e.item_id for e in events]), basket]),
            types,
            np.minimum(np.array(times, np.int64), now - n + np.arange(n)),  # in their order, before now
            compute_event_weights(types, values, self.config.events),
        )

    def _type(self, name: str, field: str) -> int:
        names = self.config.events.names
        if name not in names:
            raise RequestError(
                f"{field} is expected to be one of {', '.join(names)}; got {name!r:.80}",
                field=field, code="unknown_event_type",
            )  # fmt: skip
        return names.index(name)

    def _strongest(self) -> int:
        """Type code of the event with the largest weight, usually a purchase."""
        weights = [kind.weight for kind in self.config.events.types.values()]
        return weights.index(max(weights))

    def _weakest_interest(self) -> tuple[float, int]:
        """Weight and type code of the event with the smallest positive weight."""
        types = enumerate(self.config.events.types.values())
        weights = [(w, code) for code, kind in types for w in (kind.weight, *(w for _, w in kind.weight_by_value))]
        return min([pair for pair in weights if pair[0] > 0], default=(1.0, 0))


def find_similar_surface(config: Config) -> str:
    """Return the surface of lists of similar items."""
    return "similar" if "similar" in config.surfaces else "home"


def join_numbers(*parts: np.ndarray) -> np.ndarray:
    """Return the distinct catalog numbers of all parts, ascending."""
    return np.unique(np.concatenate(parts)) if any(map(len, parts)) else NOTHING


def find_known(vocabulary: Vocabulary, ids: Sequence[str]) -> np.ndarray:
    """Return the numbers of the ids that the vocabulary has."""
    if not ids:
        return NOTHING
    numbers = vocabulary.number(ids)
    return numbers[numbers != NONE]


def make_user_key(user_id: str | None, anonymous_id: str | None) -> str | None:
    """Return the user id under which events are logged and features are stored."""
    if user_id is not None:
        return user_id
    return None if anonymous_id is None else ANONYMOUS + anonymous_id


def new_id() -> str:
    return uuid.uuid4().hex
