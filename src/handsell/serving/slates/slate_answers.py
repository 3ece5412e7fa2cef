"""Answers made from slates, and the impressions that are logged with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, TypeVar

import numpy as np

from handsell.experiments.config import RANK
from handsell.experiments.traffic import IN_NONE
from handsell.serving.graph.loaded_bundle import LoadedBundle, RankedList
from handsell.serving.http import answers as a
from handsell.serving.http import render
from handsell.serving.http.queries import Query
from handsell.serving.reuse.user_slate import UserSlate
from handsell.serving.slates.arm_traffic import ArmRequest
from handsell.serving.telemetry.observability import Metrics
from handsell.serving.telemetry.slate_metrics import SlateMetrics

log = logging.getLogger(__name__)
T = TypeVar("T")


class SlateAnswers:
    """Renders slates, counts them in metrics and offers them to the impression log."""

    def __init__(self, metrics: Metrics, offer: Callable[[dict[str, Any]], None], max_feed: int):
        self._metrics, self._offer, self._max_feed = metrics, offer, max_feed
        self._watch = SlateMetrics(metrics.registry)

    def build(
        self, bundle: LoadedBundle, query: Query, served: UserSlate, include: Collection[str] = (),
        request: ArmRequest | None = None, is_shown: bool = True, cold_start: bool | None = None,
    ) -> a.RecommendationsAnswer:  # fmt: skip
        """Build the answer of a request, with its arms if it is in any, and log the impression if it is shown.

        `cold_start` is what the answer says instead of what the slate was made with.
        """
        given = IN_NONE if request is None else request.given
        snapshot, once = bundle.snapshot, partial(_make_once, served.rendered)
        slate = once("slate", lambda: render.render_slate(served.slates, served.row, query.count, snapshot))
        surface = bundle.config.surface_names[query.surface]
        degraded = list(dict.fromkeys(served.slates.degraded))
        relaxed = once("relaxed", lambda: served.slates.relaxed_constraints(served.row, query.count))
        self._metrics.count_answer(surface, served.cold, len(slate.item_id) < query.count, degraded, relaxed)
        self._metrics.set_rules(served.slates.rules)
        if degraded:
            log.warning(
                "degraded answer",
                extra={"fields": {"recommendation_id": query.recommendation_id, "degraded": degraded}},
            )
        drawn = once("drawn", lambda: sum(reason.code == "explore" for reason in slate.reason))
        measure = partial(once, "figures", lambda: self._watch.measure(slate.item, snapshot))
        diversity = self._watch.record(surface, query.user_id, slate.item, drawn, snapshot, measure)
        if is_shown:
            arms = given.describe(served.teams[: len(slate.item_id)])
            items = (
                render.encode_impression(slate, arms)
                if arms
                else once("shown", lambda: render.encode_impression(slate, {}))
            )
            self._offer_slate(bundle, query, surface, items)
        answer = a.RecommendationsAnswer(
            recommendation_id=query.recommendation_id,
            surface=surface,
            cold_start=served.cold if cold_start is None else cold_start,
            items=render.build_recommended_items(slate, snapshot, True)
            if "metadata" in include
            else once("items", lambda: render.build_recommended_items(slate, snapshot, False)),
            relaxed=relaxed,
            next_cursor=self._next_cursor(query, slate.item, complete=not degraded),
            degraded=degraded,
            release=once("release", lambda: bundle.release.with_rules(slate.rules)),
        )
        if served.reused == "slate" and not include and request is None:
            answer.write_from(served.rendered)
        if "debug" in include:
            answer.debug = a.Debug(reused=served.reused, age_ms=round(served.age_s * 1_000))
        if request is not None:
            answer.arms = given.list_arms()
            request.degraded, request.items, request.requested = bool(degraded), len(slate.item_id), query.count
            request.diversity = diversity
        return answer

    def _offer_slate(self, bundle: LoadedBundle, query: Query, surface: str, items: str) -> None:
        """Offer a slate, or a list of the caller, whose `items` are encoded."""
        self._offer(
            {
                "recommendation_id": query.recommendation_id, "time": query.time, "user_id": query.user_id,
                "surface": surface, "bundle": bundle.release.bundle, "items": items,
            }
        )  # fmt: skip

    def build_ranked(
        self,
        bundle: LoadedBundle,
        query: Query,
        ranked: RankedList,
        unknown: list[str],
        shown: int | None,
        request: ArmRequest | None,
    ) -> a.RankAnswer:
        """Build the answer to a request with the caller's own items; the impression has those that will be shown."""
        answer = a.RankAnswer(
            items=ranked.items, unknown_item_ids=unknown, degraded=ranked.degraded, release=bundle.release.stamp
        )
        given = IN_NONE if request is None else request.given
        if request is not None:
            answer.arms = given.list_arms()
            request.degraded, request.requested = bool(ranked.degraded), 0
        if shown is not None:
            answer.recommendation_id = query.recommendation_id
            self._offer_slate(bundle, query, RANK, render.encode_ranked(ranked.items[:shown], given.describe()))
        return answer

    def _next_cursor(self, query: Query, items: np.ndarray, complete: bool) -> str | None:
        """The cursor after these items; None at the end of the feed: it is full, or a complete page was short."""
        shown = np.union1d(query.shown, items) if len(query.shown) else items  # each is in a slate once
        if len(shown) >= self._max_feed or (complete and len(items) < query.count):
            return None
        return query.feed.encode(shown)


def _make_once(made: dict[str, Any], name: str, make: Callable[[], T]) -> T:
    """Return a part of the answers with a slate, made for the first of them."""
    if name not in made:
        made[name] = make()
    return made[name]
