"""Requests for slates: from the arms of a request to the answer made with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from handsell.core.batches import NONE
from handsell.core.hashing import derive_seed
from handsell.experiments.traffic import IN_NONE, Participation, Variant
from handsell.serving.graph.loaded_bundle import LoadedBundle, UserSlate, now
from handsell.serving.graph.stages import BundleNotHeld
from handsell.serving.http import answers as a
from handsell.serving.http.queries import Query
from handsell.serving.http.schemas import RecommendationsBody
from handsell.serving.slates.arm_traffic import ArmRequest, ArmTraffic
from handsell.serving.slates.interleaved_slates import interleave
from handsell.serving.slates.slate_answers import SlateAnswers

log = logging.getLogger(__name__)

AnswerFrom = Callable[[LoadedBundle], Awaitable[a.RecommendationsAnswer]]


class Bundles(Protocol):
    """The bundles of a gateway."""

    def find_bundle(self, bundle: str | None) -> LoadedBundle | None: ...

    async def from_one_bundle(self, answer_from: AnswerFrom) -> a.RecommendationsAnswer:
        """Answer from the current bundle, or entirely from the previous one if a stage lacks the current one."""
        ...


class Recommender:
    """Answers requests with what their arms give: a bundle, changed settings, or two arms' slates in one."""

    def __init__(self, bundles: Bundles, arms: ArmTraffic, answers: SlateAnswers):
        self._bundles, self._arms, self._answers = bundles, arms, answers

    async def recommend(self, body: RecommendationsBody, given: Participation) -> a.RecommendationsAnswer:
        """Answer a request whose user is identified."""
        if given is IN_NONE:
            return await self._bundles.from_one_bundle(lambda bundle: self._answer_from(bundle, body, None))
        with self._arms.observe(given) as request:
            try:
                return await self._answer_in_arms(body, request)
            except BundleNotHeld as error:
                log.info("%s; answering as control", error)
                request.given = self._arms.traffic.without_bundles(given)
            return await self._bundles.from_one_bundle(lambda bundle: self._answer_from(bundle, body, request))

    async def _answer_in_arms(self, body: RecommendationsBody, request: ArmRequest) -> a.RecommendationsAnswer:
        """Answer from the bundles of the arms; raises BundleNotHeld."""
        given = request.given
        if given.interleaved is not None:
            return await self._bundles.from_one_bundle(lambda bundle: self._interleave(bundle, body, request))
        if given.variant.bundle is None:
            return await self._bundles.from_one_bundle(lambda bundle: self._answer_from(bundle, body, request))
        bundle = self._find(given.variant)
        bundle.is_only = False
        return await self._answer_from(bundle, body, request)

    def _find(self, variant: Variant) -> LoadedBundle:
        found = self._bundles.find_bundle(variant.bundle)
        if found is None:
            raise BundleNotHeld(f"this gateway does not hold bundle {variant.bundle}")
        return found

    async def _answer_from(
        self, bundle: LoadedBundle, body: RecommendationsBody, request: ArmRequest | None
    ) -> a.RecommendationsAnswer:
        query = parse(bundle, body, Variant() if request is None else request.given.variant)
        return self._answers.build(bundle, query, await bundle.recommend(query), "metadata" in body.include, request)

    async def _interleave(
        self, current: LoadedBundle, body: RecommendationsBody, request: ArmRequest
    ) -> a.RecommendationsAnswer:
        """Make the slates of both teams at once, and one of them; the answer names the first team's bundle."""
        given = request.given
        bundles = [current if v.bundle is None else self._find(v) for v in given.variants]
        first, second = (parse(bundle, body, v) for bundle, v in zip(bundles, given.variants, strict=True))
        second = replace(second, recommendation_id=first.recommendation_id, time=first.time)
        served = await asyncio.gather(bundles[0].recommend(first), bundles[1].recommend(second))
        slates = [one.slates.take(slice(one.row, one.row + 1)) for one in served]
        if bundles[0] is not bundles[1]:
            slates[1] = await bundles[0].drop_deleted(slates[1])  # numbers that only one of them knows, for a moment
        query = replace(first, count=max(first.count, second.count))
        merged, team = interleave(slates[0], slates[1], query.count, derive_seed(query.recommendation_id))
        teams = tuple(None if number == NONE else given.teams[number] for number in team.tolist())
        slate = UserSlate(merged, 0, served[0].cold, teams)
        return self._answers.build(bundles[0], query, slate, "metadata" in body.include, request)


def parse(bundle: LoadedBundle, body: RecommendationsBody, variant: Variant) -> Query:
    """Return the query with a variant's settings."""
    query = bundle.build_parser(variant.overlay).parse_recommendations(body, now())
    return query if not variant.arms else replace(query, arms=variant.arms, overlay=variant.overlay)
