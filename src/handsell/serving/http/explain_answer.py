"""The answer of GET /v1/explain: a story in ids, names and words. Ranks and positions count from 1."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.units import DAY_US
from handsell.ranking.explain import RankingExplanation
from handsell.reranking.reasons import REASONS
from handsell.retrieval.explain import CandidateExplanation
from handsell.serving.http import answers as a
from handsell.serving.http.explain import ItemExplanation
from handsell.serving.http.schemas import ExplainParameters


def build_answer(
    asked: ExplainParameters, story: ItemExplanation, config: Config, snapshot: Snapshot, release: a.ReleaseStamp
) -> a.ExplainAnswer:
    """The answer to a question about one item; `asked.features` says how many contributions are listed."""
    surface = config.surface_names[int(story.requests.surface[0])]
    return a.ExplainAnswer(
        user_id=asked.user_id,
        item_id=asked.item_id,
        surface=surface,
        count=story.n,
        cold_start=story.cold,
        time=_moment(int(story.requests.time[0])),
        outcome=story.outcome,
        position=_from_one(story.reranking.place) if story.reranking and story.outcome == "shown" else None,
        eligibility=None if story.candidates is None else _eligibility(story, config, snapshot),
        candidates=None if story.candidates is None else _candidates(story.candidates),
        ranking=None if story.ranking is None else _ranking(story.ranking, story.candidates, asked.features),
        reranking=_reranking(story, snapshot),
        degraded=list(dict.fromkeys(story.degraded)),
        release=release,
    )


# -- eligibility -------------------------------------------------------------------------------------------


def _eligibility(story: ItemExplanation, config: Config, snapshot: Snapshot) -> a.ExplainedEligibility:
    assert story.candidates is not None
    removed = [
        a.Removal(filter=name, detail=WORDS[name](story, config, snapshot)) for name in story.candidates.removed_by
    ]
    return a.ExplainedEligibility(eligible=not removed, removed_by=removed)


def _seen(story: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    seen = story.requests.seen
    at = int(seen.time.row(0)[seen.item.row(0) == story.item].max())
    name, surface = _surface(story, config)
    if surface.repeat == "exclude":
        return f"the user acted on it at {_moment(at)}; surface {name} does not repeat such items"
    back = at + int(surface.after_days * DAY_US)
    return f"the user acted on it at {_moment(at)}; surface {name} repeats it from {_moment(back)} on"


def _shown(story: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    name, surface = _surface(story, config)
    places = " or ".join(surface.seen_on)
    return f"shown on {places} in the last {surface.shown_days:g} days; surface {name} does not repeat it"


def _capped(story: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    cap = _surface(story, config)[1].item_cap
    assert cap is not None
    return f"shown {cap.times} times or more in the last {cap.days:g} days, which is as often as item_cap allows"


def _surface_filter(story: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    name, surface = _surface(story, config)
    return f"does not pass the filter of surface {name}: {surface.filter}"


def _creator(story: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    return f"its creator {snapshot.creators.ids(snapshot.creator[[story.item]])[0]} is blocked"


def _tag(story: ItemExplanation, config: Config, snapshot: Snapshot) -> str:
    assert story.requests.exclusions is not None
    blocked = np.intersect1d(snapshot.item_tags.row(story.item), story.requests.exclusions.tag.row(0))
    return f"blocked tags: {', '.join(snapshot.tags.ids(blocked))}"


WORDS: dict[str, Callable[[ItemExplanation, Config, Snapshot], str]] = {
    "unavailable": lambda *_: "the catalog says that it is not available",
    "not_yet_published": lambda s, _, shelf: f"it is published at {_moment(int(shelf.published[s.item]))}",
    "expired": lambda s, _, shelf: f"it expired at {_moment(int(shelf.expires[s.item]))}",
    "excluded": lambda *_: "the request excludes it",
    "seen": _seen,
    "shown": _shown,
    "item_cap": _capped,
    "blocked_creator": _creator,
    "blocked_tag": _tag,
    "surface_filter": _surface_filter,
    "request_filter": lambda s, *_: f"does not pass the request's filter: {s.requests.filters[0]}",
    "unknown_history": lambda *_: "what the user was shown or blocks could not be read, so that nothing is shown",
}


def _surface(story: ItemExplanation, config: Config) -> tuple[str, Any]:
    name = config.surface_names[int(story.requests.surface[0])]
    return name, config.surfaces[name]


# -- stages ------------------------------------------------------------------------------------------------


def _candidates(story: CandidateExplanation) -> a.ExplainedCandidates:
    return a.ExplainedCandidates(
        as_if_eligible=bool(story.removed_by),
        sources=[
            a.ExplainedSource(source=s.name, outcome=s.outcome, rank=_from_one(s.rank), k=s.k, score=_number(s.score))
            for s in story.sources
        ],
        fused_score=_number(story.fused),
        rank=_from_one(story.rank),
        of=story.of,
        passed_on=story.k,
    )


def _ranking(story: RankingExplanation, candidates: CandidateExplanation | None, features: int) -> a.ExplainedRanking:
    order = np.argsort(-np.abs(story.contributions), kind="stable")
    return a.ExplainedRanking(
        as_if_candidate=candidates is None or not candidates.kept,
        rank=story.rank + 1,
        of=story.of,
        passed_on=story.k,
        score=_number(story.score),
        raw_score=_number(story.raw),
        base=_number(story.base),
        contributions=[
            a.Contribution(
                feature=story.features[f],
                value=_number(story.values[f]),
                contribution=round(float(story.contributions[f]), 6),
            )
            for f in order[:features].tolist()
        ],
        other_features=_number(story.contributions[order[features:]].sum(dtype=np.float64)),
    )


def _reranking(story: ItemExplanation, snapshot: Snapshot) -> a.ExplainedReranking | None:
    if story.reranking is None or story.order is None:
        return None
    place, reason = story.reranking.place, None
    if place is not None:
        about = int(story.order.reason_item[0, place])
        reason = a.Reason(
            code=REASONS[int(story.order.reason[0, place])],
            item_id=None if about == NONE else snapshot.items.ids(np.array([about]))[0],
        )
    return a.ExplainedReranking(
        before=story.reranking.before + 1,
        place=_from_one(place),
        moved_by=list(story.reranking.moved_by),
        place_without={rule: _from_one(place) for rule, place in story.reranking.without.items()},
        reason=reason,
    )


def _from_one(rank: int | None) -> int | None:
    return None if rank is None else rank + 1


def _number(value: Any) -> float | None:
    """Six digits; None for nothing and for what is unknown."""
    return None if value is None or not np.isfinite(value) else round(float(value), 6)


def _moment(us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + np.timedelta64(us, "us").item()).isoformat().replace("+00:00", "Z")
