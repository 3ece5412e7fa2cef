"""The endpoints of a gateway, one method each: from validated bodies to answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind

from handsell.core.errors import RequestError
from handsell.core.logs.request_trace import RequestTrace, get_trace, set_traces
from handsell.events.impressions import ImpressionQueue
from handsell.events.store.interface import AppendResult, Blocks
from handsell.events.store.opening import open_reader
from handsell.experiments.config import RANK
from handsell.experiments.state import ExperimentStates
from handsell.experiments.traffic import Participation
from handsell.serving.changes.catalog_rows import Items, StoredChanges, Users
from handsell.serving.changes.identities import Identities
from handsell.serving.changes.people import People
from handsell.serving.graph.event_sink import EventSink
from handsell.serving.graph.loaded_bundle import LoadedBundle, now
from handsell.serving.graph.stages import BUDGET, BundleNotHeld
from handsell.serving.guard_rails.counts import OutcomeCounter
from handsell.serving.http import answers as a
from handsell.serving.http import schemas
from handsell.serving.http.access.access_control import AccessControl
from handsell.serving.http.event_intake import validate_events
from handsell.serving.http.explain import build_answer
from handsell.serving.http.onboarding.question_queries import build_onboarding_answer, parse_onboarding
from handsell.serving.http.onboarding.question_schemas import OnboardingAnswer, OnboardingBody
from handsell.serving.http.preview.preview_schemas import PreviewParameters
from handsell.serving.http.queries import find_similar_surface, make_user_key
from handsell.serving.slates.arm_traffic import ArmTraffic
from handsell.serving.slates.recommender import Recommender, SlateRequest
from handsell.serving.slates.slate_answers import SlateAnswers
from handsell.serving.slates.slate_previews import SlatePreviews
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.state_metrics import StateMetrics
from handsell.serving.telemetry.tracing import stop_tracing, trace

log = logging.getLogger(__name__)
T = TypeVar("T")
B = TypeVar(
    "B", schemas.RecommendationsBody, schemas.RankBody, schemas.ExplainParameters, schemas.SimilarParameters,
    OnboardingBody, PreviewParameters,
)  # fmt: skip

PROBE = schemas.RecommendationsBody(user_id="readiness probe")  # with a user id, so that the feature store is read


class Service:
    """Answers from the current bundle.

    Where a stage's replica does not hold the current bundle, the whole request is answered from the previous one.
    """

    def __init__(self, bundle: LoadedBundle, events: EventSink, metrics: Metrics):
        self.config, self.metrics = bundle.config, metrics
        self.bundle = bundle
        self.previous: LoadedBundle | None = None
        self.refused: a.RefusedBundle | None = None  # a live bundle that this gateway cannot serve
        self.experiment_states = ExperimentStates()  # replaced as a whole about once a second
        self.arm_bundles: Mapping[str, LoadedBundle] = {}  # other bundles that experiments' arms answer from
        self.refused_arms: Mapping[str, str] = {}  # why this gateway cannot serve a bundle of an arm, by bundle
        self.arm_outcomes = OutcomeCounter()
        self._events = events
        self.changes = StoredChanges(open_reader(self.config), events, self.config.serving.deadline_ms / 1_000)
        self.identities = Identities(partial(open_reader, self.config))
        self.access = AccessControl(self.config.access, partial(open_reader, self.config), events)
        self.people = People(events, self.identities, self.config.serving.deadline_ms / 1_000)
        self.items, self.users = Items(self.config, self.changes), Users(self.config, self.changes)
        self._impressions = ImpressionQueue(self._append_slates, metrics.impressions_lost.inc)
        metrics.waiting_slates.set_function(lambda: len(self._impressions))
        self._arms = ArmTraffic(self.config, self.identities, metrics.registry, self.arm_outcomes)
        self._slates = SlateAnswers(metrics, self._offer, self.config.serving.max_feed)
        self._recommender = Recommender(self, self._arms, self._slates)
        self.previews = SlatePreviews(
            self,
            lambda query: self._assign(query, query.surface),
            lambda: self._arms.traffic,
            self.identities.find_user,
        )
        self._traced: dict[str, RequestTrace] = {}  # sampled requests whose slates wait, by recommendation id
        self._checked: list[LoadedBundle] = []  # bundles that are about to be used
        self._was_ready = False
        self._report_bundle()

    # -- bundles --------------------------------------------------------------------------------------------

    def switch_to(self, bundle: LoadedBundle) -> None:
        """Answer from another bundle from now on, and close the one before the previous."""
        before, self.previous, self.bundle, self.refused = self.previous, self.bundle, bundle, None
        if before is not None:
            self.close_unused(before)
        self._report_bundle()

    def find_bundle(self, bundle: str | None) -> LoadedBundle | None:
        """Return a bundle that this gateway can answer from: the current, the previous, or an arm's; else None."""
        held = (self.bundle, self.previous, *self.arm_bundles.values())
        return next((one for one in held if one is not None and one.release.bundle == bundle), None)

    def list_bundles(self) -> list[str]:
        """Return the ids of the bundles that this gateway can answer from, the live one first."""
        held = (self.bundle, self.previous, *self.arm_bundles.values())
        return list(dict.fromkeys(one.release.bundle for one in held if one is not None))

    @contextlib.contextmanager
    def hold(self, bundle: LoadedBundle) -> Iterator[None]:
        """Keep a bundle open while it is checked, whoever else drops it; afterwards close it if it is unused."""
        self._checked.append(bundle)
        try:
            yield
        finally:
            self._checked.remove(bundle)
            self.close_unused(bundle)

    def close_unused(self, bundle: LoadedBundle) -> None:
        """Close a bundle that is neither current nor previous nor an arm's, and that nobody checks."""
        if bundle not in (self.bundle, self.previous, *self.arm_bundles.values(), *self._checked):
            bundle.close()

    def refuse(self, bundle: str, reason: str) -> None:
        """Keep the current bundle and report why the live one is not served."""
        self.refused = a.RefusedBundle(bundle=bundle, reason=reason)
        self._report_bundle()

    def clear_refusal(self) -> None:
        self.refused = None
        self._report_bundle()

    def set_experiment_states(self, states: ExperimentStates) -> None:
        """Apply which arms and experiments are stopped, and the canary, from the next request on."""
        if states != self.experiment_states:
            self.experiment_states = states
            self.metrics.set_experiments(states)

    async def probe(self, bundle: LoadedBundle) -> list[str]:
        """Send a real request through a bundle; returns the names of what failed."""
        query = replace(bundle.parser.parse_recommendations(PROBE, now()), is_fresh=True)
        return list((await bundle.recommend(query)).slates.degraded)

    def _report_bundle(self) -> None:
        release = self.bundle.release
        self.metrics.bundle.clear()
        self.metrics.bundle.labels(release.bundle, release.snapshot).set(1)
        self.metrics.refused.clear()
        if self.refused is not None:
            self.metrics.refused.labels(self.refused.bundle).set(1)
        catalog = self.bundle.catalog
        self.metrics.watch_catalog(lambda: catalog.age_s, lambda: len(catalog.snapshot) - len(catalog.snapshot.base))
        self.metrics.set_ages(release.made_us, self.bundle.snapshot.as_of, self.bundle.clock.offset_us)

    async def from_one_bundle(self, answer_from: Callable[[LoadedBundle], Awaitable[T]]) -> T:
        """Answer from the current bundle, or entirely from the previous one if a stage lacks the current one."""
        bundle, previous = self.bundle, self.previous
        bundle.is_only = previous is None
        try:
            return await answer_from(bundle)
        except BundleNotHeld as error:
            assert previous is not None
            log.info("%s; answering from %s", error, previous.release.bundle)
            self.metrics.previous_bundle_answers.inc()
        previous.is_only = True
        return await answer_from(previous)

    # -- endpoints ------------------------------------------------------------------------------------------

    async def recommend(self, body: schemas.RecommendationsBody, is_shown: bool = True) -> a.RecommendationsAnswer:
        mine = self._identify(body)
        asked = SlateRequest(
            lambda parser, arrived: parser.parse_recommendations(mine, arrived), body.include, is_shown=is_shown
        )
        return await self._recommender.recommend(asked, self._assign(body, body.surface))

    async def similar(
        self, item_id: str, query: schemas.SimilarParameters, is_shown: bool = True
    ) -> a.RecommendationsAnswer:
        mine = self._identify(query)
        asked = SlateRequest(
            lambda parser, arrived: parser.parse_similar(item_id, query, arrived),
            query.include,
            make_user_key(mine.user_id, mine.anonymous_id),
            is_shown,
            cold_start=False,  # the query is an item, not a user
        )
        return await self._recommender.recommend(asked, self._assign(query, find_similar_surface(self.config)))

    async def rank(self, body: schemas.RankBody) -> a.RankAnswer:
        return await self._recommender.rank(self._identify(body), self._assign(body, RANK))

    async def explain(self, query: schemas.ExplainParameters) -> a.ExplainAnswer:
        """Explain why an item is or is not in the user's slate now; nothing is logged as shown."""

        async def answer_from(bundle: LoadedBundle) -> a.ExplainAnswer:
            parser = bundle.build_parser(variant.overlay)
            parsed = replace(
                parser.parse_explain(self._identify(query), now()), arms=variant.arms, overlay=variant.overlay
            )
            explanation = await bundle.explain(parsed)
            return build_answer(query, explanation, parser.config, bundle.snapshot, bundle.release.stamp)

        variant = self._assign(query, query.surface).variant
        held = self.find_bundle(variant.bundle) if variant.bundle is not None else None
        return await (self.from_one_bundle(answer_from) if held is None else answer_from(held))

    async def onboarding(
        self, body: OnboardingBody, liked: Sequence[str] = (), disliked: Sequence[str] = ()
    ) -> OnboardingAnswer:
        """Choose items to ask a new user about; `liked` and `disliked` are answers beside those of the session."""
        bundle = self.bundle
        query = parse_onboarding(bundle.parser, self._identify(body), now(), liked, disliked)
        asked = await bundle.ask(query)
        return build_onboarding_answer(asked, bundle.snapshot, "metadata" in body.include, bundle.release.stamp)

    def public_list(self, name: str, query: schemas.ListParameters) -> a.ListAnswer:
        """`popular` or `trending`, available items only."""
        bundle = self.bundle
        body = schemas.RecommendationsBody(count=query.count, filter=query.filter)
        visitor = bundle.parser.parse_recommendations(body, 0.0)
        items = bundle.public_list(name, visitor, "metadata" in query.include)
        return a.ListAnswer(items=items, release=bundle.release.stamp)

    async def events(self, body: schemas.EventsBody) -> a.EventsAnswer:
        """Answer when the accepted events are durable; raises EventStoreError when they are not."""
        found = validate_events(body, self.bundle.config, self.bundle.snapshot, self.bundle.clock)
        done = AppendResult(0, 0, ())
        if found.rows:
            with self.metrics.time_append("events", len(found.rows)), trace("append events", SpanKind.CLIENT):
                done = await self._events.append(found.rows)
        self.metrics.unknown_items.inc(found.unknown_items)
        counts = {"accepted": done.accepted, "duplicates": done.duplicates, "rejected": len(found.rejected)}
        for outcome, count in counts.items():
            self.metrics.events.labels(outcome).inc(count)
        return a.EventsAnswer(accepted=done.accepted, duplicates=done.duplicates, rejected=found.rejected)

    async def block(self, user_id: str, body: schemas.BlocksBody) -> a.BlocksAnswer:
        """Replace the blocks of a user; they are durable on return. Raises EventStoreError."""
        owner = self.identities.find_user(user_id) or user_id
        done = await self._events.put_blocks(owner, body.creators, body.tags)
        stored = Blocks(owner, tuple(body.creators), tuple(body.tags), done.offsets[0])
        for bundle in (self.bundle, self.previous):
            if bundle is not None:
                bundle.add_blocks(stored)
        return a.BlocksAnswer(user_id=user_id, creators=list(body.creators), tags=list(body.tags))

    async def blocks(self, user_id: str) -> a.BlocksAnswer:
        found = await self.bundle.blocks(self.identities.find_user(user_id) or user_id)
        return a.BlocksAnswer(user_id=user_id, **found)

    async def ready(self) -> a.Health:
        """Send a real request through every stage, and an empty append; raises RequestError (503) until all answer.

        A service that was ready once stays ready when it is degraded: it still answers, and names what failed.
        """

        async def probe(bundle: LoadedBundle) -> tuple[LoadedBundle, list[str]]:
            return bundle, await self.probe(bundle)

        bundle, failed = await self.from_one_bundle(probe)
        try:
            async with asyncio.timeout(self.config.serving.deadline_ms / 1_000):
                await self._events.append([])
        except Exception as error:
            log.warning("the event log does not answer: %r", error)
            failed.append("event_log")
        if failed and not self._was_ready:
            raise RequestError(f"not ready yet: {', '.join(failed)} did not answer", status=503, code="not_ready")
        self._was_ready = True
        return a.Health(
            status="degraded" if failed else "ready",
            release=bundle.release.stamp,
            stages={n: "missing" if n in failed else "ok" for n in (*BUDGET, "event_log", *failed)},
            refused=self.refused,
        )

    async def measure(self) -> None:
        """Publish size and lag of the event store and the disk use, until cancelled."""
        await StateMetrics(self.metrics.registry).run(self.config, lambda: self.bundle.clock.now())

    async def close(self) -> None:
        await self._impressions.close()
        self.changes.close()
        self.identities.close()
        self.access.close()
        for bundle in (self.bundle, self.previous):
            if bundle is not None:
                bundle.close()
        await asyncio.to_thread(self._events.close)
        await asyncio.to_thread(stop_tracing)

    def _offer(self, slate: dict[str, Any]) -> None:
        if (origin := get_trace()).span_id:
            name = slate["recommendation_id"]
            self._traced[name] = origin._replace(recommendation_id=name)
        self._impressions.offer(slate)

    async def _append_slates(self, slates: Sequence[dict[str, Any]]) -> None:
        traced = self._traced
        self._traced = {}
        set_traces(traced.values())
        with self.metrics.time_append("slates"), trace("append slates", SpanKind.CLIENT):
            await self._events.append_slates(slates)

    def _assign(self, body: B, surface: str) -> Participation:
        """Return the arms of a request, by the present state of experiments and the bundles that are held."""
        held = {self.bundle.release.bundle, *self.arm_bundles}
        self._arms.follow(self.experiment_states, held)
        anonymous_id, session_id = getattr(body, "anonymous_id", None), getattr(body, "session_id", None)
        return self._arms.assign(body.user_id, anonymous_id, session_id, surface)

    def _identify(self, body: B) -> B:
        """Return the body as the user's, where it names a visitor who was merged into a user."""
        key = make_user_key(body.user_id, getattr(body, "anonymous_id", None))
        user_id = self.identities.find_user(key)
        return body if user_id == key else body.model_copy(update={"user_id": user_id})
