"""GET /v1/explain: why one item is or is not in a user's slate, stage by stage.

Ranks and positions in the answer count from 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.units import DAY_US
from handsell.ranking.explain import RankingExplanation, explain_ranking
from handsell.reranking.explain import RerankingExplanation, explain_reranking
from handsell.reranking.reasons import REASONS
from handsell.retrieval.explain import CandidateExplanation, explain_candidate
from handsell.serving.graph.stages import StageRun
from handsell.serving.http import answers as a
from handsell.serving.http.schemas import ExplainParameters


@dataclass(frozen=True, slots=True)
class ItemExplanation:
    """The place of one item in one slate, stage by stage.

    A stage is None where it failed, and is then named in `degraded`, or where the item did not reach it.
    """

    requests: Requests  # B = 1
    item: int
    n: int
    cold: bool
    candidates: CandidateExplanation | None
    ranking: RankingExplanation | None
    reranking: RerankingExplanation | None
    order: Slates | None  # all ranked candidates in the order of re-ranking
    degraded: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """`shown`, or the first stage that kept the item out of the slate."""
        if self.candidates is None:
            return "unknown"
        if self.candidates.removed_by:
            return "filtered"
        if not self.candidates.kept:
            return "not_retrieved" if self.candidates.rank is None else "beyond_candidates"
        if self.ranking is None:
            return "unknown"
        if self.ranking.rank >= self.ranking.k:
            return "cut_by_ranking"
        if self.reranking is None:
            return "unknown"
        if self.reranking.place is None:
            return "filtered"
        return "shown" if self.reranking.place < self.n else "below_the_slate"


async def explain_item(
    run: StageRun, requests: Requests, item: int, n: int, cold: bool, config: Config
) -> ItemExplanation:
    """Follow an item through the stages as the funnel runs them for a slate of n."""
    failures, k = run.failures, max(config.ranking.ranked, n)
    candidates: CandidateExplanation | None = None
    ranking: RankingExplanation | None = None
    reranking: RerankingExplanation | None = None
    found = ranked = order = None
    with failures.tolerate("candidates"):
        found, candidates = await run.call("candidates", explain_candidate, requests, item, config.retrieval.candidates)
        failures.add(*found.degraded)
    if found is not None:
        with failures.tolerate("ranking"):
            ranked, ranking = await run.call("ranking", explain_ranking, requests, found, item, k)
    if candidates is not None and ranking is not None and candidates.kept and ranking.rank < k:
        with failures.tolerate("reranking"):
            order, reranking = await run.call("reranking", explain_reranking, requests, ranked, item)
    return ItemExplanation(requests, item, n, cold, candidates, ranking, reranking, order, failures.names)


def build_answer(
    query: ExplainParameters, explanation: ItemExplanation, config: Config, snapshot: Snapshot, release: a.ReleaseStamp
) -> a.ExplainAnswer:
    """The answer of GET /v1/explain; `query.features` is the number of contributions listed."""
    surface = config.surface_names[int(explanation.requests.surface[0])]
    candidates, ranking, reranking = explanation.candidates, explanation.ranking, explanation.reranking
    return a.ExplainAnswer(
        user_id=query.user_id,
        item_id=query.item_id,
        surface=surface,
        count=explanation.n,
        cold_start=explanation.cold,
        time=_format_time(int(explanation.requests.time[0])),
        outcome=explanation.outcome,
        position=_from_one(reranking.place) if reranking and explanation.outcome == "shown" else None,
        eligibility=None if candidates is None else _eligibility(explanation, config, snapshot),
        candidates=None if candidates is None else _candidates(candidates),
        ranking=None if ranking is None else _build_ranking(ranking, candidates, query.features),
        reranking=_build_reranking(explanation, snapshot),
        degraded=list(explanation.degraded),
        release=release,
    )


# -- eligibility -------------------------------------------------------------------------------------------


def _eligibility(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> a.ExplainedEligibility:
    assert explanation.candidates is not None
    removed = [
        a.Removal(filter=name, detail=FILTER_TEXTS[name](explanation, config, snapshot))
        for name in explanation.candidates.removed_by
    ]
    return a.ExplainedEligibility(eligible=not removed, removed_by=removed)


def _describe_seen(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    seen = explanation.requests.seen
    at = int(seen.time.row(0)[seen.item.row(0) == explanation.item].max())
    name, surface = _surface(explanation, config)
    if surface.repeat == "exclude":
        return f"the user acted on it at {_format_time(at)}; surface {name} never repeats such items"
    back = at + int(surface.after_days * DAY_US)
    return f"the user acted on it at {_format_time(at)}; surface {name} shows it again from {_format_time(back)}"


def _describe_shown(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    name, surface = _surface(explanation, config)
    places = " or ".join(surface.seen_on)
    return f"shown on {places} in the last {surface.shown_days:g} days; surface {name} does not repeat it"


def _describe_capped(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    cap = _surface(explanation, config)[1].item_cap
    assert cap is not None
    return f"shown {cap.times} times or more in the last {cap.days:g} days, the limit of item_cap"


def _describe_surface_filter(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    name, surface = _surface(explanation, config)
    return f"does not pass the filter of surface {name}: {surface.filter}"


def _describe_creator(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    return f"its creator {snapshot.creators.ids(snapshot.creator[[explanation.item]])[0]} is blocked"


def _describe_tag(explanation: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    assert explanation.requests.exclusions is not None
    blocked = np.intersect1d(snapshot.item_tags.row(explanation.item), explanation.requests.exclusions.tag.row(0))
    return f"blocked tags: {', '.join(snapshot.tags.ids(blocked))}"


FILTER_TEXTS: dict[str, Callable[[ItemExplanation, Config, Snapshot], str]] = {
    "unavailable": lambda e, _, snapshot: (
        "it has been deleted" if snapshot.is_deleted(np.array(e.item)) else "the catalog marks it as unavailable"
    ),
    "not_yet_published": lambda e, _, snapshot: f"it is published at {_format_time(int(snapshot.published[e.item]))}",
    "expired": lambda e, _, snapshot: f"it expired at {_format_time(int(snapshot.expires[e.item]))}",
    "excluded": lambda *_: "the request excludes it",
    "seen": _describe_seen,
    "shown": _describe_shown,
    "item_cap": _describe_capped,
    "blocked_creator": _describe_creator,
    "blocked_tag": _describe_tag,
    "surface_filter": _describe_surface_filter,
    "request_filter": lambda e, *_: f"does not pass the request's filter: {e.requests.filters[0]}",
    "unknown_history": lambda *_: "the user's impressions and blocks could not be read, so nothing is shown",
}


def _surface(explanation: ItemExplanation, config: Config) -> tuple[str, Any]:
    name = config.surface_names[int(explanation.requests.surface[0])]
    return name, config.surfaces[name]


# -- stages ------------------------------------------------------------------------------------------------


def _candidates(explanation: CandidateExplanation) -> a.ExplainedCandidates:
    return a.ExplainedCandidates(
        as_if_eligible=bool(explanation.removed_by),
        sources=[
            a.ExplainedSource(source=s.name, outcome=s.outcome, rank=_from_one(s.rank), k=s.k, score=_number(s.score))
            for s in explanation.sources
        ],
        fused_score=_number(explanation.fused),
        rank=_from_one(explanation.rank),
        of=explanation.of,
        passed_on=explanation.k,
    )


def _build_ranking(
    explanation: RankingExplanation, candidates: CandidateExplanation | None, features: int
) -> a.ExplainedRanking:
    order = np.argsort(-np.abs(explanation.contributions), kind="stable")
    return a.ExplainedRanking(
        as_if_candidate=candidates is None or not candidates.kept,
        rank=explanation.rank + 1,
        of=explanation.of,
        passed_on=explanation.k,
        score=_number(explanation.score),
        raw_score=_number(explanation.raw),
        base=_number(explanation.base),
        contributions=[
            a.Contribution(
                feature=explanation.features[f],
                value=_number(explanation.values[f]),
                contribution=round(float(explanation.contributions[f]), 6),
            )
            for f in order[:features].tolist()
        ],
        other_features=_number(explanation.contributions[order[features:]].sum(dtype=np.float64)),
    )


def _build_reranking(explanation: ItemExplanation, snapshot: Snapshot) -> a.ExplainedReranking | None:
    if explanation.reranking is None or explanation.order is None:
        return None
    place, reason = explanation.reranking.place, None
    if place is not None:
        about = int(explanation.order.reason_item[0, place])
        reason = a.Reason(
            code=REASONS[int(explanation.order.reason[0, place])],
            item_id=None if about == NONE else snapshot.items.ids(np.array([about]))[0],
        )
    return a.ExplainedReranking(
        before=explanation.reranking.before + 1,
        place=_from_one(place),
        moved_by=list(explanation.reranking.moved_by),
        place_without={rule: _from_one(place) for rule, place in explanation.reranking.without.items()},
        reason=reason,
    )


def _from_one(rank: int | None) -> int | None:
    return None if rank is None else rank + 1


def _number(value: Any) -> float | None:
    """Round to six digits; None if the value is missing or not finite."""
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def _format_time(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + np.timedelta64(us, "us").item()).isoformat().replace("+00:00", "Z")
