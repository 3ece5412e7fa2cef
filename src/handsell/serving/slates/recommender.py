"""Requests for slates and ranked lists: from the arms of a request to the answer made with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from handsell.core.batches import NONE
from handsell.core.hashing import derive_seed
from handsell.experiments.interleaved_slates import interleave
from handsell.experiments.traffic import IN_NONE, Participation, Variant
from handsell.serving.graph.loaded_bundle import LoadedBundle, RankedList, now
from handsell.serving.graph.stages import BundleNotHeld
from handsell.serving.http import answers as a
from handsell.serving.http.queries import Query, QueryParser
from handsell.serving.http.schemas import RankBody
from handsell.serving.reuse.user_slate import UserSlate
from handsell.serving.slates.arm_traffic import ArmRequest, ArmTraffic
from handsell.serving.slates.slate_answers import SlateAnswers

log = logging.getLogger(__name__)

T = TypeVar("T")
AnswerFrom = Callable[[LoadedBundle, ArmRequest | None], Awaitable[T]]


class Bundles(Protocol):
    """The bundles of a gateway."""

    def find_bundle(self, bundle: str | None) -> LoadedBundle | None: ...

    def list_bundles(self) -> list[str]: ...

    async def from_one_bundle(self, answer_from: Callable[[LoadedBundle], Awaitable[T]]) -> T:
        """Answer from the current bundle, or entirely from the previous one if a stage lacks the current one."""
        ...


@dataclass(frozen=True, slots=True)
class SlateRequest:
    """A request for a slate, which each variant parses with its own settings."""

    parse: Callable[[QueryParser, float], Query]  # with the time of its arrival
    include: Collection[str] = ()  # `metadata` of items, `debug`
    shown_to: str | None = None  # the user, where the slate does not depend on one
    is_shown: bool = True  # False: only counted, because it was shown before
    cold_start: bool | None = None  # what the answer says of its user; None: what the slate was made with

    def parse_as(self, bundle: LoadedBundle, variant: Variant) -> Query:
        """Return the query with a variant's settings."""
        query = self.parse(bundle.build_parser(variant.overlay), now())
        return query if not variant.arms else replace(query, arms=variant.arms, overlay=variant.overlay)


class Recommender:
    """Answers requests with what their arms give: a bundle, changed settings, or two arms' slates in one."""

    def __init__(self, bundles: Bundles, arms: ArmTraffic, answers: SlateAnswers):
        self._bundles, self._arms, self._answers = bundles, arms, answers

    async def recommend(self, asked: SlateRequest, given: Participation) -> a.RecommendationsAnswer:
        """Answer a request whose user is identified."""

        async def answer_from(bundle: LoadedBundle, request: ArmRequest | None) -> a.RecommendationsAnswer:
            if request is not None and request.given.interleaved is not None:
                return await self._interleave(bundle, asked, request)
            query = asked.parse_as(bundle, Variant() if request is None else request.given.variant)
            return self._build(bundle, asked, query, await bundle.recommend(query), request)

        return await self._answer(given, answer_from)

    async def rank(self, body: RankBody, given: Participation) -> a.RankAnswer:
        """Rank the caller's own items for a user who is identified."""

        async def answer_from(bundle: LoadedBundle, request: ArmRequest | None) -> a.RankAnswer:
            variant = Variant() if request is None else request.given.variant
            query, unknown = bundle.build_parser(variant.overlay).parse_rank(body, now())
            query = replace(query, arms=variant.arms, overlay=variant.overlay)
            ranked = await bundle.rank(query) if len(query.items) else RankedList([], [])
            return self._answers.build_ranked(bundle, query, ranked, unknown, body.shown, request)

        return await self._answer(given, answer_from)

    async def _answer(self, given: Participation, answer_from: AnswerFrom[T]) -> T:
        """Answer from the bundle of the arms, or as control where a stage does not hold it."""
        if given is IN_NONE:
            return await self._bundles.from_one_bundle(lambda bundle: answer_from(bundle, None))
        with self._arms.observe(given) as request:
            try:
                if given.interleaved is not None or given.variant.bundle is None:
                    return await self._bundles.from_one_bundle(lambda bundle: answer_from(bundle, request))
                bundle = self._find(given.variant)
                bundle.is_only = False
                return await answer_from(bundle, request)
            except BundleNotHeld as error:
                log.info("%s; answering as control", error)
                request.given = self._arms.traffic.without_bundles(given)
            return await self._bundles.from_one_bundle(lambda bundle: answer_from(bundle, request))

    def _find(self, variant: Variant) -> LoadedBundle:
        found = self._bundles.find_bundle(variant.bundle)
        if found is None:
            raise BundleNotHeld(f"this gateway does not hold bundle {variant.bundle}")
        return found

    async def _interleave(
        self, current: LoadedBundle, asked: SlateRequest, request: ArmRequest
    ) -> a.RecommendationsAnswer:
        """Make the slates of both teams at once, and one of them; the answer names the first team's bundle."""
        given = request.given
        bundles = [current if v.bundle is None else self._find(v) for v in given.variants]
        first, second = (asked.parse_as(bundle, v) for bundle, v in zip(bundles, given.variants, strict=True))
        second = replace(second, recommendation_id=first.recommendation_id, time=first.time)
        served = await asyncio.gather(bundles[0].recommend(first), bundles[1].recommend(second))
        slates = [one.slates.take(slice(one.row, one.row + 1)) for one in served]
        if bundles[0] is not bundles[1]:
            slates[1] = await bundles[0].drop_deleted(slates[1])  # numbers that only one of them knows, for a moment
        query = replace(first, count=max(first.count, second.count))
        merged, team = interleave(slates[0], slates[1], query.count, derive_seed(query.recommendation_id))
        teams = tuple(None if number == NONE else given.teams[number] for number in team.tolist())
        return self._build(bundles[0], asked, query, UserSlate(merged, 0, served[0].cold, teams), request)

    def _build(
        self, bundle: LoadedBundle, asked: SlateRequest, query: Query, slate: UserSlate, request: ArmRequest | None
    ) -> a.RecommendationsAnswer:
        shown = query if asked.shown_to is None else replace(query, user_id=asked.shown_to)
        return self._answers.build(bundle, shown, slate, asked.include, request, asked.is_shown, asked.cold_start)
