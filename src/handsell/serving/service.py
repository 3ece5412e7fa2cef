"""What the gateway answers: every endpoint as one method, from checked bodies to plain dicts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from handsell.catalogue.snapshot import Snapshot
from handsell.core.batches import Slates
from handsell.core.config import Config
from handsell.core.errors import RequestError
from handsell.events.impressions import ImpressionQueue
from handsell.events.log import Appended
from handsell.serving import render, schemas
from handsell.serving.batcher import MicroBatcher
from handsell.serving.charts import Charts, named
from handsell.serving.clock import Clock
from handsell.serving.feature_log import Sample, sampled
from handsell.serving.given import best_first
from handsell.serving.ingest import sort_events
from handsell.serving.observability import Metrics
from handsell.serving.queries import Query, Reading
from handsell.serving.stages import BUDGET, StageCalls, Trip
from handsell.serving.users import Known, Users

log = logging.getLogger(__name__)

PROBE = schemas.RecommendationsBody(user_id="readiness probe")  # an id, so that the feature store is asked too


class EventSink(Protocol):
    """The durable log, wherever its one writer runs; both raise EventLogError when nothing was stored."""

    async def append(self, events: Sequence[dict[str, Any]]) -> Appended: ...

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> Appended: ...


@dataclass(frozen=True, slots=True)
class Release:
    """The versions that an answer was made with: stamped on responses, impressions and hops."""

    bundle: str
    snapshot: int
    catalogue: int

    def as_dict(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "snapshot": self.snapshot, "catalogue": self.catalogue}


@dataclass(frozen=True, slots=True)
class Served:
    """One query's row of a batch of slates."""

    slates: Slates
    row: int
    cold: bool


class Service:
    """One gateway. Concurrent requests share trips through the stages; see `MicroBatcher`."""

    def __init__(
        self, config: Config, release: Release, snapshot: Snapshot, stages: StageCalls, users: Users, charts: Charts,
        events: EventSink, clock: Clock,
    ):  # fmt: skip
        self.config, self.release, self.snapshot, self.clock = config, release, snapshot, clock
        self.metrics = Metrics()
        self.metrics.bundle.labels(release.bundle, release.snapshot).set(1)
        self.metrics.clock_offset.set(clock.offset_us / 1e6)
        self._stages, self._users, self._charts, self._events = stages, users, charts, events
        self._reading = Reading(config, snapshot, clock)
        serving = config.serving
        self._slates: MicroBatcher[Query, Served] = MicroBatcher(
            self._recommend, serving.micro_batch, serving.in_flight
        )
        self._lists: MicroBatcher[Query, dict[str, Any]] = MicroBatcher(self._rank, 1, serving.in_flight)
        self._impressions = ImpressionQueue(events.append_slates, self.metrics.impressions_lost.inc)
        self._was_ready = False

    # -- endpoints ------------------------------------------------------------------------------------------

    async def recommend(self, body: schemas.RecommendationsBody) -> dict[str, Any]:
        query = self._reading.recommendations(body, _now())
        return self._answer(query, await self._submit(query), "metadata" in body.include)

    async def similar(self, item_id: str, query: schemas.ListParameters) -> dict[str, Any]:
        asked = self._reading.similar(item_id, query.count, _now())
        answer = self._answer(asked, await self._submit(asked), "metadata" in query.include)
        return {**answer, "cold_start": False}  # it was asked about an item, of which everything is known

    async def rank(self, body: schemas.RankBody) -> dict[str, Any]:
        query, unknown = self._reading.rank(body, _now())
        if not len(query.items):
            return {"items": [], "unknown_item_ids": unknown, "degraded": [], "release": self.release.as_dict()}
        answer = await self._lists.submit(query)
        return {**answer, "unknown_item_ids": unknown, "release": self.release.as_dict()}

    def chart(self, name: str, query: schemas.ListParameters) -> dict[str, Any]:
        """`popular` or `trending`, available items only."""
        visitor = self._reading.recommendations(schemas.RecommendationsBody(count=query.count), 0.0)
        requests = self._users.anonymous([visitor])
        item, score = self._charts.first(getattr(self._charts, name), requests, visitor.count)
        real = item[0] >= 0
        ids = self.snapshot.items.ids(item[0, real]) if real.any() else []
        scores = render.scores(score[0, real])
        items = render.listed(ids, scores, item[0, real], self.snapshot, "metadata" in query.include)
        return {"items": items, "release": self.release.as_dict()}

    async def events(self, body: schemas.EventsBody) -> dict[str, Any]:
        """Answers when the accepted events are durable; raises EventLogError when they are not."""
        found = sort_events(body, self.config, self.snapshot, self.clock)
        done = await self._events.append(found.rows) if found.rows else Appended(0, 0, ())
        self.metrics.unknown_items.inc(found.unknown_items)
        counts = {"accepted": done.accepted, "duplicates": done.duplicates, "rejected": len(found.rejected)}
        for outcome, count in counts.items():
            self.metrics.events.labels(outcome).inc(count)
        return {**counts, "rejected": found.rejected}

    async def ready(self) -> dict[str, Any]:
        """A real request through every stage, and an empty append; raises RequestError (503) until all answer.

        Once ready, a degraded service stays ready: it still answers, and says what it lacks.
        """
        served = await self._submit(self._reading.recommendations(PROBE, _now()))
        lacking = list(served.slates.degraded)
        try:
            async with asyncio.timeout(self.config.serving.deadline_ms / 1_000):
                await self._events.append([])
        except Exception as error:
            log.warning("the event log does not answer: %r", error)
            lacking.append("event_log")
        if lacking and not self._was_ready:
            raise RequestError(f"not ready yet: {', '.join(lacking)} did not answer", status=503, code="not_ready")
        self._was_ready = True
        stages = {name: "missing" if name in lacking else "ok" for name in (*BUDGET, "event_log", *lacking)}
        return {"status": "degraded" if lacking else "ready", "release": self.release.as_dict(), "stages": stages}

    async def close(self) -> None:
        await self._impressions.close()
        self._users.close()

    # -- a batch through the stages -----------------------------------------------------------------------------

    async def _submit(self, query: Query) -> Served:
        self.metrics.waiting.set(len(self._slates))
        return await self._slates.submit(query)

    async def _recommend(self, queries: Sequence[Query]) -> list[Served]:
        """One trip. Slates are as long as the longest asked: a shorter one is its beginning (greedy selection)."""
        self.metrics.batch_size.observe(len(queries))
        trip, known = await self._depart(queries)
        n = max(query.count for query in queries)
        try:
            slates = await trip.funnel(self.config).recommend(known.requests, n)
        except Exception:
            log.exception("candidates did not come; serving what is popular", extra={"fields": _ids(queries)})
            slates = self._charts.slates(known.requests, n, ("candidates",))
        slates = named(slates, *known.degraded)
        return [Served(slates, row, bool(cold)) for row, cold in enumerate(known.cold)]

    async def _rank(self, queries: Sequence[Query]) -> list[dict[str, Any]]:
        """The caller's own list of one query."""
        trip, known = await self._depart(queries)
        items = queries[0].items[None]
        try:
            found = await trip.given(known.requests, items)
        except Exception:
            log.exception("candidates did not come; ranking without sources", extra={"fields": _ids(queries)})
            found = self._charts.candidates(items)
        degraded = [*known.degraded, *found.degraded]
        try:
            ranked = await trip.rank(known.requests, found, items.shape[1])
        except Exception:
            log.exception("ranking failed; answering in retrieval order", extra={"fields": _ids(queries)})
            ranked, degraded = best_first(found), [*degraded, "ranking"]
        for cause in degraded:
            self.metrics.degraded.labels(cause).inc()
        ids, scores = self.snapshot.items.ids(ranked.item[0]), render.scores(ranked.score[0])
        return [{"items": render.listed(ids, scores, ranked.item[0], self.snapshot, False), "degraded": degraded}]

    async def _depart(self, queries: Sequence[Query]) -> tuple[Trip, Known]:
        deadline_s = self.config.serving.deadline_ms / 1_000
        began = min(query.arrived for query in queries)
        share = self.config.serving.feature_log_share
        samples = tuple(
            Sample(row, query.recommendation_id, query.user_id)
            for row, query in enumerate(queries)
            if sampled(query.recommendation_id, share)
        )
        started = _now()
        known = await self._users.known(queries, began + BUDGET["features"] * deadline_s)
        self.metrics.stage_seconds.labels("features").observe(_now() - started)
        for age_s in known.age_s:
            self.metrics.features_age.observe(age_s)
        return Trip(self._stages, self.metrics, began, deadline_s, samples), known

    # -- one answer -----------------------------------------------------------------------------------------

    def _answer(self, query: Query, served: Served, metadata: bool) -> dict[str, Any]:
        slate = render.shown(served.slates, served.row, query.count, self.snapshot)
        surface = self.config.surface_names[query.surface]
        degraded = list(dict.fromkeys(served.slates.degraded))
        self.metrics.answered(surface, served.cold, len(slate.item_id) < query.count, degraded)
        if degraded:
            log.warning(
                "degraded answer",
                extra={"fields": {"recommendation_id": query.recommendation_id, "degraded": degraded}},
            )
        self._impressions.offer(
            {
                "recommendation_id": query.recommendation_id,
                "time": query.time,
                "user_id": query.user_id,
                "surface": surface,
                "bundle": self.release.bundle,
                "items": render.impression_items(slate),
            }
        )
        return {
            "recommendation_id": query.recommendation_id,
            "surface": surface,
            "cold_start": served.cold,
            "items": render.slate_items(slate, self.snapshot, metadata),
            "degraded": degraded,
            "release": self.release.as_dict(),
        }


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ids(queries: Sequence[Query]) -> dict[str, Any]:
    return {"recommendation_ids": [query.recommendation_id for query in queries]}
