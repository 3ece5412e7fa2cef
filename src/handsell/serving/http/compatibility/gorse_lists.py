"""Lists of Gorse's API: recommendations, items similar to one, popular and latest items."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from handsell.core.errors import RequestError
from handsell.eligibility.columns import TEXTS
from handsell.eligibility.filters import get_filters
from handsell.serving.graph.loaded_bundle import now
from handsell.serving.graph.service import Service
from handsell.serving.http import schemas as s
from handsell.serving.http.answers import RecommendationsAnswer
from handsell.serving.http.compatibility.gorse_feedback import build_body, parse_body
from handsell.serving.http.compatibility.gorse_schemas import (
    GorseFeedbackBody,
    GorseListParameters,
    GorsePublicParameters,
    GorseRecommendParameters,
    GorseScore,
)

NO_DELAY = re.compile(r"(0+(\.0+)?(h|m|s|ms|us|µs|ns))+|0?")
Ask = Callable[[int, str | None, bool], Awaitable[RecommendationsAnswer]]  # count, cursor, whether it is shown


class GorseListCalls:
    """Answers lists of a service."""

    def __init__(self, service: Service):
        self._service = service

    async def recommend(
        self, user_id: str, query: GorseRecommendParameters, categories: Sequence[str]
    ) -> list[GorseScore]:
        """Recommend items to a user, after those of earlier pages; with a write-back type, store them as events."""
        kind = self._check_write_back(query)
        answers = await self._collect(self._ask_for(user_id=user_id, filter=self.build_filter(categories)), query)
        if kind is not None:
            await self._write_back(user_id, kind, answers)
        return _list_scores(answers)

    async def recommend_for_session(
        self, given: Sequence[GorseFeedbackBody], query: GorseListParameters, categories: Sequence[str]
    ) -> list[GorseScore]:
        """Recommend items to a visitor with these events, without those items; nothing is stored."""
        events = [build_body(one, f"[{index}]") for index, one in enumerate(given)]
        session = [{name: value for name, value in event.items() if name != "user_id"} for event in events]
        ask = self._ask_for(
            session={"events": session},
            exclude={"item_ids": [event["item_id"] for event in session if "item_id" in event]},
            filter=self.build_filter(categories),
        )
        return _list_scores(await self._collect(ask, query))

    def _ask_for(self, **fields: Any) -> Ask:
        body = parse_body(s.RecommendationsBody, fields)

        async def ask(count: int, cursor: str | None, is_shown: bool) -> RecommendationsAnswer:
            return await self._service.recommend(body.model_copy(update={"count": count, "cursor": cursor}), is_shown)

        return ask

    async def list_neighbors(
        self, item_id: str, query: GorseListParameters, categories: Sequence[str]
    ) -> list[GorseScore]:
        """List items similar to one; as in Gorse, an unknown item has none."""
        asked = parse_body(s.SimilarParameters, {"filter": self.build_filter(categories)})

        async def ask(count: int, cursor: str | None, is_shown: bool) -> RecommendationsAnswer:
            page = asked.model_copy(update={"count": count, "cursor": cursor})
            return await self._service.similar(item_id, page, is_shown)

        try:
            return _list_scores(await self._collect(ask, query))
        except RequestError as error:
            if error.status != 404:
                raise
            return []

    async def list_public(self, name: str, query: GorsePublicParameters, categories: Sequence[str]) -> list[GorseScore]:
        """List popular or latest items; with a user, without those that this user may not be shown."""
        bundle = self._service.bundle
        fields = {"user_id": query.user_id, "filter": self.build_filter(categories)}
        body = parse_body(s.RecommendationsBody, fields)
        parsed = replace(bundle.parser.parse_recommendations(body, now()), count=query.offset + query.n)
        found = await bundle.list_allowed(name, parsed)
        items = found[query.offset :]
        if name != "latest":
            return [GorseScore(Id=item.item_id, Score=item.score) for item in items]
        published = bundle.snapshot.published[bundle.snapshot.items.number([item.item_id for item in items])]
        return [
            GorseScore(Id=item.item_id, Score=max(us, 0) / 1e6)
            for item, us in zip(items, published.tolist(), strict=True)
        ]

    def build_filter(self, categories: Sequence[str]) -> str | None:
        """Return the filter of items with all categories: in the column `categories`, or in `tags` without one."""
        wanted = [category for category in categories if category]
        if not wanted:
            return None
        attributes = get_filters(self._service.bundle.snapshot).attributes
        column = "categories" if attributes.get("categories") == TEXTS else "tags"
        return " and ".join(f"{_quote(category)} in item.{column}" for category in wanted)

    async def _collect(self, ask: Ask, query: GorseListParameters) -> list[RecommendationsAnswer]:
        """Ask for pages of the feed; those before `offset` were shown earlier and are not logged again."""
        most, cursor, answers = self._service.config.serving.max_count, None, list[RecommendationsAnswer]()
        for wanted, is_shown in ((query.offset, False), (query.n, True)):
            while wanted > 0:
                answer = await ask(min(wanted, most), cursor, is_shown)
                wanted -= max(len(answer.items), 1)
                cursor = answer.next_cursor
                if is_shown:
                    answers.append(answer)
                if cursor is None:
                    return answers
        return answers

    def _check_write_back(self, query: GorseRecommendParameters) -> str | None:
        """Return the type of events to store; raises RequestError (400) for a delay or an unknown type."""
        kind, delay = query.write_back_type or None, query.write_back_delay or ""
        if kind is None:
            return None
        names = self._service.config.events.names
        if kind not in names:
            raise RequestError(
                f"write-back-type: expected one of {', '.join(names)}, got {kind!r:.80}", field="write-back-type",
                status=400, code="unknown_event_type",
            )  # fmt: skip
        if not NO_DELAY.fullmatch(delay):
            raise RequestError(
                f"write-back-delay: expected none, got {delay!r:.40}: events are not stored ahead of their time. "
                "What is shown is logged anyway, and `seen_on` of a surface keeps it from coming back at once",
                field="write-back-delay", status=400, code="no_delay",
            )  # fmt: skip
        return kind

    async def _write_back(self, user_id: str, kind: str, answers: Sequence[RecommendationsAnswer]) -> None:
        events = [
            {
                "type": kind, "user_id": user_id, "item_id": item.item_id, "position": item.rank,
                "recommendation_id": answer.recommendation_id, "surface": answer.surface,
            }
            for answer in answers
            for item in answer.items
        ]  # fmt: skip
        if events:
            await self._service.events(parse_body(s.EventsBody, {"events": events}))


def _list_scores(answers: Sequence[RecommendationsAnswer]) -> list[GorseScore]:
    return [GorseScore(Id=item.item_id, Score=item.score) for answer in answers for item in answer.items]


def _quote(text: str) -> str:
    """Return a text of a filter expression."""
    if "\\" in text:
        raise RequestError(
            f"category: expected text without a backslash, got {text!r:.80}", field="category", status=400,
            code="invalid_category",
        )  # fmt: skip
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"
