"""One bundle in a gateway: all that depends on it, from reading a body to a batch's way through the stages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Slates
from handsell.core.clock import Clock
from handsell.eligibility.filter_reasons import removed
from handsell.serving.graph.batcher import MicroBatcher
from handsell.serving.graph.circuit_breaker import STALL, Breaker
from handsell.serving.graph.popularity_fallback import Charts, named
from handsell.serving.graph.score_items import best_first
from handsell.serving.graph.stages import BUDGET, NotHeld, StageCalls, StageRun
from handsell.serving.graph.users import Known, Users
from handsell.serving.http import render
from handsell.serving.http.answers import Item, RankedItem, ReleaseStamp, SlateStamp
from handsell.serving.http.explain import ItemExplanation, explain_item
from handsell.serving.http.queries import Query, Reading
from handsell.serving.telemetry.feature_log import Sample, sampled
from handsell.serving.telemetry.observability import Metrics

log = logging.getLogger(__name__)

# share of the deployment's deadline that a request may wait for its trip, well within the share of its features;
# who asks for less time than the deployment gives gets a poorer slate sooner than a refusal
PATIENCE = 0.2


@dataclass(frozen=True)
class Release:
    """The versions that an answer was made with: stamped on responses, impressions and hops."""

    bundle: str
    snapshot: int
    catalog: int
    made_us: int = 0  # when the bundle was made; not stamped

    @cached_property
    def stamp(self) -> ReleaseStamp:
        return ReleaseStamp(bundle=self.bundle, snapshot=self.snapshot, catalog=self.catalog)

    def with_rules(self, version: str | None) -> SlateStamp:
        return SlateStamp(bundle=self.bundle, snapshot=self.snapshot, catalog=self.catalog, rules=version)


@dataclass(frozen=True, slots=True)
class Refused:
    """A live bundle that is not served, and why."""

    bundle: str
    reason: str


@dataclass(frozen=True, slots=True)
class UserSlate:
    """One query's row of a batch of slates."""

    slates: Slates
    row: int
    cold: bool


@dataclass(frozen=True, slots=True)
class RankedList:
    """A caller's own list, best first, and what failed on the way."""

    items: list[RankedItem]
    degraded: list[str]


class LoadedBundle:
    """Concurrent requests share trips through the stages; see `MicroBatcher`.

    A trip raises NotHeld where a stage's replica does not hold this bundle: what the others answered is dropped,
    so that no response mixes two. With `alone` set there is no other to fall back on: such a stage counts as failed.
    """

    def __init__(
        self, config: Config, release: Release, snapshot: Snapshot, stages: StageCalls, users: Users, charts: Charts,
        clock: Clock, metrics: Metrics,
    ):  # fmt: skip
        self.config, self.release, self.snapshot, self.clock = config, release, snapshot, clock
        self.stages, self.metrics, self.alone = stages, metrics, False
        self.reading = Reading(config, snapshot, clock)
        self._users, self._charts = users, charts
        serving, patience_s = config.serving, PATIENCE * config.serving.deadline_ms / 1_000
        stall_s = STALL * serving.deadline_ms / 1_000
        self._breakers = {stage: Breaker(stage, stall_s) for stage in ("candidates", "ranking", "reranking")}
        self._slates: MicroBatcher[Query, UserSlate] = MicroBatcher(
            self._recommend, serving.micro_batch, serving.in_flight, patience_s, lambda query: query.deadline_s
        )
        self._lists: MicroBatcher[Query, RankedList] = MicroBatcher(self._rank, 1, serving.in_flight, patience_s)
        self._stories: MicroBatcher[Query, ItemExplanation] = MicroBatcher(self._explain, 1, 1, patience_s)

    async def slate(self, query: Query) -> UserSlate:
        self.metrics.waiting.set(len(self._slates))
        return await self._slates.submit(query)

    async def ranked(self, query: Query) -> RankedList:
        """The caller's own list, ranked."""
        return await self._lists.submit(query)

    async def explained(self, query: Query) -> ItemExplanation:
        """How the one item of the query fares in the query's slate."""
        return await self._stories.submit(query)

    def chart(self, name: str, visitor: Query, metadata: bool) -> list[Item]:
        """Available items of `popular` or `trending`."""
        requests = self._users.anonymous([visitor])
        item, score = self._charts.first(getattr(self._charts, name), requests, visitor.count)
        real = item[0] >= 0
        return render.listed_items(item[0, real], score[0, real], self.snapshot, metadata)

    def blocks(self, user_id: str) -> dict[str, list[str]]:
        """Creators and tags that a user blocks."""
        return self._users.blocks(user_id)

    def close(self) -> None:
        self._users.close()

    async def _recommend(self, queries: Sequence[Query]) -> list[UserSlate]:
        """One trip. Slates are as long as the longest asked: a shorter one is its beginning (greedy selection)."""
        self.metrics.batch_size.observe(len(queries))
        trip, known = await self._depart(queries)
        self.metrics.removed(removed(self._charts.eligibility, known.requests))
        n = max(query.count for query in queries)
        try:
            slates = await trip.funnel(self.config).recommend(known.requests, n)
        except Exception:
            log.exception("candidates did not come; serving what is popular", extra={"fields": _ids(queries)})
            slates = self._charts.slates(known.requests, n, ("candidates",))
        self._same_bundle(trip)
        slates = named(slates, *known.degraded)
        return [UserSlate(slates, row, bool(cold)) for row, cold in enumerate(known.cold)]

    async def _rank(self, queries: Sequence[Query]) -> list[RankedList]:
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
        self._same_bundle(trip)
        for cause in degraded:
            self.metrics.degraded.labels(cause).inc()
        return [RankedList(render.ranked_items(ranked, self.snapshot), degraded)]

    async def _explain(self, queries: Sequence[Query]) -> list[ItemExplanation]:
        (query,) = queries
        trip, known = await self._depart(queries)
        story = await explain_item(
            trip, known.requests, int(query.items[0]), query.count, bool(known.cold[0]), self.config
        )
        self._same_bundle(trip)
        return [replace(story, degraded=(*known.degraded, *story.degraded))]

    def _same_bundle(self, trip: StageRun) -> None:
        if trip.lacking and not self.alone:
            raise NotHeld(f"{', '.join(trip.lacking)} no longer or not yet with bundle {self.release.bundle}")

    async def _depart(self, queries: Sequence[Query]) -> tuple[StageRun, Known]:
        deadline_s = queries[0].deadline_s  # of all: others do not share a trip
        began = min(query.arrived for query in queries)
        share = self.config.serving.feature_log_share
        samples = tuple(
            Sample(row, query.recommendation_id, query.user_id)
            for row, query in enumerate(queries)
            if sampled(query.recommendation_id, share)
        )
        started = now()
        known = await self._users.known(queries, began + BUDGET["features"] * deadline_s)
        self.metrics.stage_seconds.labels("features").observe(now() - started)
        for age_s in known.age_s:
            self.metrics.features_age.observe(age_s)
        return StageRun(self.stages, self.metrics, self._breakers, began, deadline_s, samples), known


def now() -> float:
    """Event loop time, by which deadlines are kept."""
    return asyncio.get_running_loop().time()


def _ids(queries: Sequence[Query]) -> dict[str, Any]:
    return {"recommendation_ids": [query.recommendation_id for query in queries]}
