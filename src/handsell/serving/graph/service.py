"""What the gateway answers: every endpoint as one method, from checked bodies to answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from handsell.core.errors import RequestError
from handsell.events.impressions import ImpressionQueue
from handsell.events.log import AppendResult
from handsell.serving.graph.loaded_bundle import LoadedBundle, RankedList, Refused, UserSlate, now
from handsell.serving.graph.stages import BUDGET, NotHeld
from handsell.serving.http import answers as a
from handsell.serving.http import render, schemas
from handsell.serving.http.event_intake import sort_events
from handsell.serving.http.explain_answer import build_answer
from handsell.serving.http.queries import Query
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.slate_watch import SlateWatch

log = logging.getLogger(__name__)
T = TypeVar("T")

PROBE = schemas.RecommendationsBody(user_id="readiness probe")  # an id, so that the feature store is asked too


class EventSink(Protocol):
    """The durable log, wherever its one writer runs; both raise EventLogError when nothing was stored."""

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult: ...

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult: ...

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult: ...


class Service:
    """One gateway: the edition served, and the one before it, from which a request is answered where a stage's
    replica does not hold the present one (the whole request, never a part of it).
    """

    def __init__(self, edition: LoadedBundle, events: EventSink, metrics: Metrics):
        self.config, self.metrics = edition.config, metrics
        self.edition, self.before, self.refused = edition, None, None  # type: LoadedBundle, LoadedBundle | None, Refused | None
        self._events = events
        self._impressions = ImpressionQueue(events.append_slates, metrics.impressions_lost.inc)
        self._watch = SlateWatch(metrics.registry)
        self._was_ready = False
        self._show()

    # -- editions -------------------------------------------------------------------------------------------

    def turn_to(self, edition: LoadedBundle) -> None:
        """Answer from another edition from now on; the one before the last is closed."""
        if self.before is not None and self.before is not edition:
            self.before.close()
        self.before, self.edition, self.refused = self.edition, edition, None
        self._show()

    def refuse(self, refused: Refused | None) -> None:
        """A live bundle that this gateway cannot serve: the present edition serves on, and says so."""
        self.refused = refused
        self._show()

    async def lacking(self, edition: LoadedBundle) -> list[str]:
        """What a real request through an edition does without."""
        query = edition.reading.recommendations(PROBE, now())
        return list((await edition.slate(query)).slates.degraded)

    def _show(self) -> None:
        release = self.edition.release
        self.metrics.bundle.clear()
        self.metrics.bundle.labels(release.bundle, release.snapshot).set(1)
        self.metrics.refused.clear()
        if self.refused is not None:
            self.metrics.refused.labels(self.refused.bundle).set(1)
        self.metrics.serves(release.made_us, self.edition.snapshot.as_of, self.edition.clock.offset_us)

    async def _from_one(self, ask: Callable[[LoadedBundle], Awaitable[T]]) -> T:
        """The answer of one edition, whole: the present one's, else the one's before it."""
        edition, before = self.edition, self.before
        edition.alone = before is None
        try:
            return await ask(edition)
        except NotHeld as error:
            assert before is not None
            log.info("%s; answering from %s", error, before.release.bundle)
            self.metrics.stepped_back.inc()
        before.alone = True
        return await ask(before)

    # -- endpoints ------------------------------------------------------------------------------------------

    async def recommend(self, body: schemas.RecommendationsBody) -> a.RecommendationsAnswer:
        async def ask(edition: LoadedBundle) -> a.RecommendationsAnswer:
            query = edition.reading.recommendations(body, now())
            return self._answer(edition, query, await edition.slate(query), "metadata" in body.include)

        return await self._from_one(ask)

    async def similar(self, item_id: str, query: schemas.SimilarParameters) -> a.RecommendationsAnswer:
        async def ask(edition: LoadedBundle) -> a.RecommendationsAnswer:
            asked = edition.reading.similar(item_id, query, now())
            answer = self._answer(edition, asked, await edition.slate(asked), "metadata" in query.include)
            answer.cold_start = False  # it was asked about an item, of which everything is known
            return answer

        return await self._from_one(ask)

    async def rank(self, body: schemas.RankBody) -> a.RankAnswer:
        async def ask(edition: LoadedBundle) -> a.RankAnswer:
            query, unknown = edition.reading.rank(body, now())
            found = await edition.ranked(query) if len(query.items) else RankedList([], [])
            return a.RankAnswer(
                items=found.items, unknown_item_ids=unknown, degraded=found.degraded, release=edition.release.stamp
            )

        return await self._from_one(ask)

    async def explain(self, asked: schemas.ExplainParameters) -> a.ExplainAnswer:
        """Why an item is, or is not, in the slate that the user would get now; nothing is logged as shown."""

        async def ask(edition: LoadedBundle) -> a.ExplainAnswer:
            found = await edition.explained(edition.reading.explain(asked, now()))
            return build_answer(asked, found, edition.config, edition.snapshot, edition.release.stamp)

        return await self._from_one(ask)

    def chart(self, name: str, query: schemas.ListParameters) -> a.ListAnswer:
        """`popular` or `trending`, available items only."""
        edition = self.edition
        body = schemas.RecommendationsBody(count=query.count, filter=query.filter)
        visitor = edition.reading.recommendations(body, 0.0)
        items = edition.chart(name, visitor, "metadata" in query.include)
        return a.ListAnswer(items=items, release=edition.release.stamp)

    async def events(self, body: schemas.EventsBody) -> a.EventsAnswer:
        """Answers when the accepted events are durable; raises EventLogError when they are not."""
        found = sort_events(body, self.edition.config, self.edition.snapshot, self.edition.clock)
        done = await self._events.append(found.rows) if found.rows else AppendResult(0, 0, ())
        self.metrics.unknown_items.inc(found.unknown_items)
        counts = {"accepted": done.accepted, "duplicates": done.duplicates, "rejected": len(found.rejected)}
        for outcome, count in counts.items():
            self.metrics.events.labels(outcome).inc(count)
        return a.EventsAnswer(accepted=done.accepted, duplicates=done.duplicates, rejected=found.rejected)

    async def block(self, user_id: str, body: schemas.BlocksBody) -> a.BlocksAnswer:
        """Durable when it answers, and kept from the next request on; raises EventLogError."""
        await self._events.put_blocks(user_id, body.creators, body.tags)
        return a.BlocksAnswer(user_id=user_id, creators=list(body.creators), tags=list(body.tags))

    def blocks(self, user_id: str) -> a.BlocksAnswer:
        return a.BlocksAnswer(user_id=user_id, **self.edition.blocks(user_id))

    async def ready(self) -> a.Health:
        """A real request through every stage, and an empty append; raises RequestError (503) until all answer.

        Once ready, a degraded service stays ready: it still answers, and says what it lacks.
        """

        async def ask(edition: LoadedBundle) -> tuple[LoadedBundle, list[str]]:
            return edition, await self.lacking(edition)

        edition, lacking = await self._from_one(ask)
        try:
            async with asyncio.timeout(self.config.serving.deadline_ms / 1_000):
                await self._events.append([])
        except Exception as error:
            log.warning("the event log does not answer: %r", error)
            lacking.append("event_log")
        if lacking and not self._was_ready:
            raise RequestError(f"not ready yet: {', '.join(lacking)} did not answer", status=503, code="not_ready")
        self._was_ready = True
        return a.Health(
            status="degraded" if lacking else "ready",
            release=edition.release.stamp,
            stages={n: "missing" if n in lacking else "ok" for n in (*BUDGET, "event_log", *lacking)},
            refused=self.refused and a.RefusedBundle(bundle=self.refused.bundle, reason=self.refused.reason),
        )

    async def close(self) -> None:
        await self._impressions.close()
        for edition in (self.edition, self.before):
            if edition is not None:
                edition.close()

    # -- one answer -----------------------------------------------------------------------------------------

    def _next(self, query: Query, items: np.ndarray, complete: bool) -> str | None:
        """The cursor after these items; None at the feed's end: it is full, or an undegraded page came short."""
        given = np.union1d(query.given, items)
        if len(given) >= self.config.serving.max_feed or (complete and len(items) < query.count):
            return None
        return query.feed.cursor(given)

    def _answer(
        self, edition: LoadedBundle, query: Query, served: UserSlate, metadata: bool
    ) -> a.RecommendationsAnswer:
        slate = render.render_slate(served.slates, served.row, query.count, edition.snapshot)
        surface = edition.config.surface_names[query.surface]
        degraded = list(dict.fromkeys(served.slates.degraded))
        relaxed = served.slates.relaxed_constraints(served.row, query.count)
        self.metrics.answered(surface, served.cold, len(slate.item_id) < query.count, degraded, relaxed)
        self.metrics.ruled(served.slates.rules)
        if degraded:
            log.warning(
                "degraded answer",
                extra={"fields": {"recommendation_id": query.recommendation_id, "degraded": degraded}},
            )
        drawn = sum(reason.code == "explore" for reason in slate.reason)
        self._watch.saw(surface, query.user_id, slate.item, drawn, edition.snapshot)
        self._impressions.offer(
            {
                "recommendation_id": query.recommendation_id,
                "time": query.time,
                "user_id": query.user_id,
                "surface": surface,
                "bundle": edition.release.bundle,
                "items": render.impression_items(slate),
            }
        )
        return a.RecommendationsAnswer(
            recommendation_id=query.recommendation_id,
            surface=surface,
            cold_start=served.cold,
            items=render.recommended_items(slate, edition.snapshot, metadata),
            relaxed=relaxed,
            next_cursor=self._next(query, slate.item, complete=not degraded),
            degraded=degraded,
            release=edition.release.with_rules(slate.rules),
        )
