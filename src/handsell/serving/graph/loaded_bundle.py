"""One bundle in a gateway: everything that depends on it, from reading a query to calling the stages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from handsell.catalog.deleted_items import drop_deleted
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.config.overlay import apply_overlay
from handsell.core.batches import Requests, Slates
from handsell.core.clock import Clock
from handsell.core.failures import Failures
from handsell.core.funnel import Funnel
from handsell.core.logs.request_trace import set_recommendation_id
from handsell.eligibility.filter_reasons import count_removed
from handsell.events.known_blocks import KnownBlocks
from handsell.events.live_catalog import FOLLOW_S, LiveCatalog
from handsell.events.store.interface import Blocks
from handsell.events.store.opening import open_impatient_reader, open_reader
from handsell.features.request_builder import BuiltRequests
from handsell.features.storage.online_rows import UserStore
from handsell.onboarding.question_model import QuestionModel
from handsell.retrieval.score_items import best_first, score_items
from handsell.serving.graph.batcher import A, MicroBatcher, build_ending
from handsell.serving.graph.circuit_breaker import STALL, Breaker
from handsell.serving.graph.loading import OpenedBundle, load_popularity
from handsell.serving.graph.popularity_fallback import PopularItems, PopularLists
from handsell.serving.graph.stages import BUDGET, READ_SHARE, STAGES, BundleNotHeld, StageClient, StageRun
from handsell.serving.graph.users import UserLookup, UserReads
from handsell.serving.http import render
from handsell.serving.http.answers import Item, RankedItem
from handsell.serving.http.explain import ItemExplanation, explain_item
from handsell.serving.http.onboarding.question_selection import AskedItems, select_questions
from handsell.serving.http.preview.preview_queries import PreviewedSlate
from handsell.serving.http.queries import Query, QueryParser
from handsell.serving.live.live_stages import LiveStages, read_now
from handsell.serving.reuse.answer_keys import AnswerKey
from handsell.serving.reuse.prompt_slates import PromptSlates
from handsell.serving.reuse.reused_batch import BatchPart, ReusedBatch
from handsell.serving.reuse.slate_reuse import SlateReuse
from handsell.serving.reuse.user_slate import UserSlate
from handsell.serving.slates.release import Release
from handsell.serving.stream.recent_likes import RecentLikes, add_likes
from handsell.serving.telemetry.batch_context import work_for
from handsell.serving.telemetry.feature_log import Sample, is_sampled
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.tracing import trace

MAX_WAIT = 0.2
"""Share of the deployment's deadline that a request may wait for its batch.

It lies well within the features' share. A caller's shorter deadline gets a degraded slate rather than a refusal.
"""

SETTLE_S = 2 * FOLLOW_S  # after which stages in other processes know a version of the catalog
VARIANTS = 256  # changed configs that are kept


@dataclass(frozen=True, slots=True)
class RankedList:
    """A caller's own list, best first, and the names of failed parts."""

    items: list[RankedItem]
    degraded: list[str]


class LoadedBundle:
    """Answers queries from one bundle; concurrent queries share batches (see `MicroBatcher`).

    A batch raises BundleNotHeld where a stage's replica does not hold this bundle: the other stages' answers are
    dropped, so that no response mixes two bundles. With `is_only` there is no other bundle to answer from, and such a
    stage counts as failed.
    """

    def __init__(
        self, config: Config, release: Release, catalog: LiveCatalog, stages: StageClient, users: UserLookup,
        popular_items: PopularItems, clock: Clock, metrics: Metrics, question_model: QuestionModel | None = None,
    ):  # fmt: skip
        self.config, self.release, self.catalog, self.clock = config, release, catalog, clock
        self.stages, self.metrics, self.is_only = stages, metrics, False
        self._running, self._is_dropped = 0, False
        self._parsers: dict[str, QueryParser] = {}
        self._question_model = question_model
        self.change_config = lru_cache(VARIANTS)(partial(apply_overlay, config))
        settle_s = 0.0 if isinstance(stages, LiveStages) else SETTLE_S
        self._reuse = SlateReuse(config, self.change_config, settle_s)
        self._prompt = PromptSlates(self._reuse, users, metrics, self.change_config)
        self._users, self._popular = users, PopularLists(popular_items)
        catalog.subscribe(self._popular.follow)
        serving, max_wait_s = config.serving, MAX_WAIT * config.serving.deadline_ms / 1_000
        self._breakers = lru_cache(VARIANTS)(self._make_breakers)
        self._slates: MicroBatcher[Query, UserSlate] = MicroBatcher(
            self._recommend, serving.micro_batch, serving.in_flight, max_wait_s,
            lambda query: (query.deadline_s, query.overlay),
        )  # fmt: skip
        self._lists: MicroBatcher[Query, RankedList] = MicroBatcher(self._rank, 1, serving.in_flight, max_wait_s)
        self._explanations: MicroBatcher[Query, ItemExplanation] = MicroBatcher(self._explain, 1, 1, max_wait_s)
        self._previews: MicroBatcher[Query, PreviewedSlate] = MicroBatcher(self._preview, 1, 1, max_wait_s)
        self._questions: MicroBatcher[Query, AskedItems] = MicroBatcher(self._ask, 1, serving.in_flight, max_wait_s)

    def _make_breakers(self, overlay: str) -> dict[str, Breaker]:
        """Make the breakers of the stages, by which a slow arm does not stop the calls of others."""
        return {stage: Breaker(stage, STALL * self.config.serving.deadline_ms / 1_000) for stage in STAGES}

    def add_likes(self, likes: RecentLikes) -> None:
        """Add recent likes to the popular and trending items; takes time that grows with the catalog."""
        now_us = self.clock.now()
        self._popular.add_likes(
            lambda snapshot, popularity, trend: add_likes(
                popularity, trend, likes, snapshot, self.config, self.release.data_end_us, now_us
            )
        )

    @property
    def snapshot(self) -> Snapshot:
        """The newest version of the catalog: it has all numbers of earlier versions."""
        return self.catalog.snapshot

    @property
    def parser(self) -> QueryParser:
        return self.build_parser("")

    def build_parser(self, overlay: str) -> QueryParser:
        """Return the parser of queries with changed settings, which lasts as long as the version of the catalog."""
        snapshot, parsers = self.snapshot, self._parsers
        if parsers and (len(parsers) > VARIANTS or next(iter(parsers.values())).snapshot is not snapshot):
            parsers.clear()
        if overlay not in parsers:
            parsers[overlay] = QueryParser(self.change_config(overlay), snapshot, self.clock)
        return parsers[overlay]

    async def recommend(self, query: Query) -> UserSlate:
        self.metrics.waiting.set(len(self._slates))
        if not self._sample((query,)) and (kept := self._prompt.find(query)) is not None:
            self._count_reused(query, kept)
            return kept
        return await self._submit(self._slates, query)

    def _count_reused(self, query: Query, slate: UserSlate | None) -> None:
        """Count what of a query's slate was reused; None: it was handed over to somebody who computes it."""
        self.metrics.count_reused(self.config.surface_names[query.surface], "slate" if slate is None else slate.reused)

    async def rank(self, query: Query) -> RankedList:
        """Rank the caller's own items."""
        return await self._submit(self._lists, query)

    async def explain(self, query: Query) -> ItemExplanation:
        """Explain the place of the query's one item in the query's slate."""
        return await self._submit(self._explanations, query)

    async def preview(self, query: Query) -> PreviewedSlate:
        """Make the query's slate for nobody: it is not counted by rules, and its features are not logged."""
        return await self._submit(self._previews, query)

    async def ask(self, query: Query) -> AskedItems:
        """Choose the items whose answers teach most about the query's user."""
        return await self._submit(self._questions, query)

    async def _submit(self, batcher: MicroBatcher[Query, A], query: Query) -> A:
        set_recommendation_id(query.recommendation_id)  # for the log lines of this request
        self._running += 1
        try:
            return await batcher.submit(query)
        finally:
            self._running -= 1
            self._close_when_idle()

    def public_list(self, name: str, query: Query, metadata: bool) -> list[Item]:
        """Available items of `popular`, `trending` or `latest`."""
        return self._list(name, self._users.build_visitor_request(query), query.count, metadata)

    async def list_allowed(self, name: str, query: Query) -> list[Item]:
        """`public_list` without the items that the query's user may not be shown, such as seen or blocked ones."""
        return self._list(name, (await self._begin([query]))[1].requests, query.count, False)

    def _list(self, name: str, requests: Requests, count: int, metadata: bool) -> list[Item]:
        popular = self._popular.items
        item, score = popular.first_allowed(getattr(popular, name), requests, count)
        real = item[0] >= 0
        return render.build_items(item[0, real], score[0, real], self.snapshot, metadata)

    async def blocks(self, user_id: str) -> dict[str, list[str]]:
        """Creators and tags that a user blocks."""
        return await self._users.read_blocks(user_id)

    def add_blocks(self, blocks: Blocks) -> None:
        """Apply blocks that have been stored, also while the event store is away."""
        self._users.add_blocks(blocks)

    async def read_attributes(self, user_id: str) -> dict[str, Any] | None:
        """Attributes of a user from the feature store; None for a user that it does not know."""
        return await self._users.read_attributes(user_id, now() + self.config.serving.deadline_ms / 1_000)

    async def forget_users(self, user_ids: Sequence[str]) -> None:
        """Remove the changed attributes and the online features of users."""
        limit = now() + self.config.serving.deadline_ms / 1_000
        async with asyncio.timeout_at(limit):
            await asyncio.to_thread(self.catalog.forget_users, set(user_ids))
        await self._users.forget_users(user_ids, limit)

    def close(self) -> None:
        """Close the stores as soon as the requests that wait here have their answers."""
        self._is_dropped = True
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._is_dropped and not self._running:
            self._users.close()

    async def _recommend(self, queries: Sequence[Query]) -> list[UserSlate | None]:
        """Answer queries whose slates are kept early, and compute the others; None for one that waits for another's."""
        self.metrics.batch_size.observe(len(queries))
        run, reads = await self._read(queries)
        keys = self._find_keys(queries, reads, run)
        batch = ReusedBatch(self._reuse, queries, reads, keys, self._slates.hand_over)
        for query, kept in batch.find_slates():
            self._slates.answer_early(query, kept)
        try:
            await self._compute(batch, run)
        except Exception as error:
            batch.fail(error)
            raise
        except asyncio.CancelledError:
            batch.fail(build_ending())
            raise
        for query, slate in zip(queries, batch.answers, strict=True):
            self._count_reused(query, slate)
        self.metrics.reuse_bytes.set(self._reuse.size)
        return batch.answers

    async def _compute(self, batch: ReusedBatch, run: StageRun) -> None:
        """Compute the slates of a batch that are not known, and answer their queries."""
        for part in batch.split():
            await self._compute_part(part, batch, run)
        for part in await batch.split_later():
            await self._compute_part(part, batch, run)

    async def _compute_part(self, part: BatchPart, batch: ReusedBatch, run: StageRun) -> None:
        built = self._users.complete(part.reads, part.queries, run.failures, self.change_config(part.overlay))
        self.metrics.count_removed(count_removed(self._popular.items.eligibility, built.requests))
        samples = self._sample(part.queries)
        own = run if samples == run.samples else replace(run, samples=samples)
        funnel, n = part.build_funnel(own.funnel(self.config)), max(query.count for query in part.queries)
        slates = await self._make_slates(own, funnel, built.requests, n, part.overlay)
        for query, slate in batch.add(part, slates, built.cold):
            self._slates.answer_early(query, slate)

    def _find_keys(self, queries: Sequence[Query], reads: UserReads, run: StageRun) -> list[AnswerKey | None]:
        """Return the keys of kept answers; None for all after a failure, and for queries that are to be logged."""
        if run.failures.names:
            return [None] * len(queries)
        keys, logged = self._reuse.build_keys(queries, reads), {sample.row for sample in run.samples}
        return [None if row in logged else key for row, key in enumerate(keys)]

    async def _make_slates(self, run: StageRun, funnel: Funnel, requests: Requests, n: int, overlay: str) -> Slates:
        """Run the funnel; popular items take the place of candidates that failed."""
        slates = None
        with run.failures.tolerate("candidates"):
            slates = await funnel.recommend(requests, n)
        if slates is None:
            popular = self._popular.items.with_config(self.change_config(overlay), self.config)
            slates = popular.build_slates(requests, n)
        self._check_held(run)
        slates = await self.drop_deleted(slates)
        failed = run.failures.names
        return replace(slates, degraded=(*slates.degraded, *failed)) if failed else slates

    async def drop_deleted(self, slates: Slates) -> Slates:
        """Return slates without deleted items: a stage may have read the catalog a second earlier or later."""
        if slates.item.size and int(slates.item.max()) >= len(self.snapshot):
            await read_now(self.catalog)
        return drop_deleted(slates, self.snapshot)

    async def _rank(self, queries: Sequence[Query]) -> list[RankedList]:
        """Rank the caller's own items of one query."""
        run, built = await self._begin(queries)
        items = queries[0].items[None]
        found = self._popular.items.build_candidates(items)
        with run.failures.tolerate("candidates"):
            found = await run.call("candidates", score_items, built.requests, items)
            run.failures.add(*found.degraded)
        ranked = best_first(found)
        with run.failures.tolerate("ranking"):
            ranked = await run.rank(built.requests, found, items.shape[1])
        self._check_held(run)
        for cause in run.failures.names:
            self.metrics.degraded.labels(cause).inc()
        return [RankedList(render.build_ranked_items(ranked, self.snapshot), list(run.failures.names))]

    async def _explain(self, queries: Sequence[Query]) -> list[ItemExplanation]:
        (query,) = queries
        run, built = await self._begin(queries)
        item, cold = int(query.items[0]), bool(built.cold[0])
        config = self.change_config(query.overlay)
        explanation = await explain_item(run, built.requests, item, query.count, cold, config)
        self._check_held(run)
        return [explanation]

    async def _preview(self, queries: Sequence[Query]) -> list[PreviewedSlate]:
        (query,) = queries
        run, built = await self._begin(queries)
        run = replace(run, samples=())
        funnel = run.uncounted_funnel(self.config)
        slates = await self._make_slates(run, funnel, built.requests, query.count, query.overlay)
        return [PreviewedSlate(slates, built.requests, bool(built.cold[0]))]

    async def _ask(self, queries: Sequence[Query]) -> list[AskedItems]:
        run, built = await self._begin(queries)
        asked = select_questions(self._question_model, self._popular.items, built.requests, queries[0].count)
        return [replace(asked, degraded=(*run.failures.names, *asked.degraded))]

    def _check_held(self, run: StageRun) -> None:
        if run.missing and not self.is_only:
            raise BundleNotHeld(f"{', '.join(run.missing)} does not hold bundle {self.release.bundle}")

    async def _begin(self, queries: Sequence[Query]) -> tuple[StageRun, BuiltRequests]:
        """Look up the users of a batch and prepare its stage calls."""
        run, reads = await self._read(queries)
        config = self.change_config(queries[0].overlay)
        return run, self._users.complete(reads, queries, run.failures, config)

    async def _read(self, queries: Sequence[Query]) -> tuple[StageRun, UserReads]:
        """Read what the stores have of the users of a batch, and prepare its stage calls."""
        deadline_s = queries[0].deadline_s  # of all: queries with another deadline do not share a batch
        began = min(query.arrived for query in queries)
        started, failures = now(), Failures()
        work_for(queries, started)
        limit = max(began + BUDGET["features"] * deadline_s, started + READ_SHARE * deadline_s)
        config = self.change_config(queries[0].overlay)
        with trace("features"):
            reads = await self._users.read(queries, limit, failures, config)
        self.metrics.observe_reads(now() - started, reads.list_ages())
        breakers, samples = self._breakers(queries[0].overlay), self._sample(queries)
        return StageRun(self.stages, self.metrics, breakers, began, deadline_s, failures, samples), reads

    def _sample(self, queries: Sequence[Query]) -> tuple[Sample, ...]:
        """Return the queries of a batch whose feature vectors are to be logged."""
        share = self.config.serving.feature_log_share if self.config.ranking.enabled else 0.0
        if not share:
            return ()
        return tuple(
            Sample(row, query.recommendation_id, query.user_id)
            for row, query in enumerate(queries)
            if is_sampled(query.recommendation_id, share)
        )


def load_bundle(opened: OpenedBundle, stages: StageClient, store: UserStore, metrics: Metrics) -> LoadedBundle:
    """Build the objects with which a gateway answers from an opened bundle."""
    config, snapshot, manifest = opened.config, opened.snapshot, opened.manifest
    blocks = KnownBlocks(open_reader(config)).start()
    users = UserLookup(store, open_reader(config), blocks, opened.live, config, open_impatient_reader(config))
    release = Release(manifest.id, snapshot.version, len(snapshot), manifest.created_us, manifest.data_end_us)
    clock = Clock.of(config.serving.clock, manifest)
    questions = QuestionModel.load(opened.path / "onboarding")
    return LoadedBundle(config, release, opened.live, stages, users, load_popularity(opened), clock, metrics, questions)


def now() -> float:
    """Event loop time, by which deadlines are kept."""
    return asyncio.get_running_loop().time()
