"""Answers of the HTTP API; written by clients/make_models.py from the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class BlocksAnswer(TypedDict):
    user_id: str
    creators: list[str]
    tags: list[str]


class Contribution(TypedDict):
    feature: str
    # null if unknown
    value: float | None
    contribution: float


class Debug(TypedDict):
    # what was computed for an earlier request: nothing, the ranked candidates, or the whole slate
    reused: Literal["nothing", "candidates", "slate"]
    # milliseconds since that was computed; 0 for nothing
    age_ms: int


class ErasureAnswer(TypedDict):
    user_id: str
    # pending: stored and started; see `pending` for what is left
    status: Literal["pending"]
    # rows of this person deleted from the event store
    deleted_rows: int
    # where the person still is, and what removes it
    pending: list[str]


class EventsAnswer(TypedDict):
    accepted: int
    duplicates: int
    rejected: list[RejectedEvent]


class ExplainAnswer(TypedDict):
    user_id: str
    item_id: str
    surface: str
    count: int
    cold_start: bool
    # as-of time of the explanation
    time: str
    outcome: Literal[
        "shown", "filtered", "not_retrieved", "beyond_candidates", "cut_by_ranking", "below_the_slate", "unknown"
    ]
    # in the slate, 1 = top
    position: int | None
    eligibility: ExplainedEligibility | None
    candidates: ExplainedCandidates | None
    ranking: ExplainedRanking | None
    # null if the item did not reach re-ranking
    reranking: ExplainedReranking | None
    degraded: list[str]
    release: ReleaseStamp


class ExplainedCandidates(TypedDict):
    # a filter removes the item; the values are those without the filter
    as_if_eligible: bool
    sources: list[ExplainedSource]
    fused_score: float | None
    # in the fused order of the sources; null where none returned it
    rank: int | None
    of: int
    # candidates passed on to ranking
    passed_on: int


class ExplainedEligibility(TypedDict):
    eligible: bool
    # every filter that removes the item
    removed_by: list[Removal]


class ExplainedRanking(TypedDict):
    # the item is not a candidate; the values are those it would have as one
    as_if_candidate: bool
    rank: int
    of: int
    # candidates passed on to re-ranking
    passed_on: int
    # 0 to 1
    score: float | None
    # base + all contributions; decides the order
    raw_score: float | None
    base: float | None
    # the largest first; empty without a ranker
    contributions: list[Contribution]
    # sum of the contributions that are not listed
    other_features: float | None


class ExplainedReranking(TypedDict):
    # rank in the ranking stage
    before: int
    # in the order of all re-ranked candidates, of which the slate is the beginning
    place: int | None
    # settings without which the place would be another
    moved_by: list[str]
    place_without: dict[str, int | None]
    reason: Reason | None


class ExplainedSource(TypedDict):
    source: str
    outcome: Literal["returned", "beyond_k", "no_evidence", "failed"]
    # among eligible items, 1 = the source's best; null without evidence
    rank: int | None
    # items requested from this source
    k: int
    # on the source's own scale
    score: float | None


class Health(TypedDict):
    status: str
    release: NotRequired[ReleaseStamp | None]
    stages: NotRequired[dict[str, str] | None]
    refused: NotRequired[RefusedBundle | None]


class HistoryEvent(TypedDict):
    type: str
    item_id: str
    time: str
    # one of the parameter `events`
    imagined: bool
    # null for an item without one
    title: str | None


class Item(TypedDict):
    item_id: str
    # 1 = top
    rank: int
    # 0 to 1
    score: float
    # only if the request includes it; without nulls. Decimals are exact text, binary is base64, times are ISO 8601,
    # durations are seconds, NaN and infinity are null
    metadata: NotRequired[dict[str, Any] | None]


class ItemAnswer(TypedDict):
    item_id: str
    title: NotRequired[str | None]
    creators: NotRequired[list[str] | None]
    tags: NotRequired[list[str] | None]
    text: NotRequired[str | None]
    published_at: NotRequired[str | None]
    expires_at: NotRequired[str | None]
    available: NotRequired[bool]


class ListAnswer(TypedDict):
    items: list[Item]
    release: ReleaseStamp


class MergeAnswer(TypedDict):
    visitor_id: str
    user_id: str
    # events of the visitor that now are the user's; 0 if merged before
    moved_events: int
    # events that both had, which count once
    duplicates: int


class OnboardingAnswer(TypedDict):
    # to ask about, in this order
    items: list[QuestionItem]
    # answers that the choice rests on
    answers: int
    # parts that failed; `onboarding`: the bundle has no model of answers, items are by popularity
    degraded: list[str]
    release: ReleaseStamp


class PreviewAnswer(TypedDict):
    user_id: str
    surface: str
    cold_start: bool
    items: list[RecommendedItem]
    # what the models read of the user, the latest first
    history: list[HistoryEvent]
    settings: PreviewSettings
    # arm by experiment that the slate is made for
    arms: dict[str, str]
    # bundles that `bundle` can name at this gateway, the live one first
    bundles: list[str]
    # constraints that could not be kept, the first relaxed first
    relaxed: list[str]
    # parts that failed or were late, and were left out
    degraded: list[str]
    release: SlateStamp


class PreviewSettings(TypedDict):
    diversity: float
    novelty: float
    exploration: float


class QuestionItem(TypedDict):
    item_id: str
    # 1 = top
    rank: int
    # 0 to 1: bits that the answer is expected to tell about the user's taste, given the answers so far and the
    # questions above; 0 for items beyond the model of answers, by popularity
    score: float
    # only if the request includes it; without nulls. Decimals are exact text, binary is base64, times are ISO 8601,
    # durations are seconds, NaN and infinity are null
    metadata: NotRequired[dict[str, Any] | None]


class RankAnswer(TypedDict):
    # only if the request says how many are `shown`
    recommendation_id: NotRequired[str | None]
    items: list[RankedItem]
    unknown_item_ids: list[str]
    degraded: list[str]
    release: ReleaseStamp
    # arm by experiment, only if the request is in one that acts on `rank`
    arms: NotRequired[dict[str, str]]


class RankedItem(TypedDict):
    item_id: str
    # 1 = top
    rank: int
    # 0 to 1
    score: float
    # only if the request includes it; without nulls. Decimals are exact text, binary is base64, times are ISO 8601,
    # durations are seconds, NaN and infinity are null
    metadata: NotRequired[dict[str, Any] | None]
    # retrievers that have a score for the item
    sources: list[str]


class Reason(TypedDict):
    code: str
    # the item of the user's history that the reason refers to
    item_id: NotRequired[str | None]
    # of that item; only if the request includes metadata and the item has a title
    title: NotRequired[str | None]


class RecommendationsAnswer(TypedDict):
    recommendation_id: str
    surface: str
    cold_start: bool
    items: list[RecommendedItem]
    # constraints that could not be kept, the first relaxed first
    relaxed: list[str]
    # requests the next page of this feed; null at its end
    next_cursor: str | None
    # parts that failed or were late, and were left out
    degraded: list[str]
    release: SlateStamp
    # arm by experiment, only if the request is in one; `interleaved` where two arms share the slate
    arms: NotRequired[dict[str, str]]
    # only if the request includes it
    debug: NotRequired[Debug | None]


class RecommendedItem(TypedDict):
    item_id: str
    # 1 = top
    rank: int
    # 0 to 1
    score: float
    # only if the request includes it; without nulls. Decimals are exact text, binary is base64, times are ISO 8601,
    # durations are seconds, NaN and infinity are null
    metadata: NotRequired[dict[str, Any] | None]
    # retrievers that returned the item
    sources: list[str]
    reason: Reason


class RefusedBundle(TypedDict):
    bundle: str
    reason: str


class RejectedEvent(TypedDict):
    # of the event in the request, 0 = first
    index: int
    code: str
    # the wrong field; empty if the event is not an object
    field: str
    # what was expected and what was received
    detail: str


class RejectedRow(TypedDict):
    # of the item or user in the request, 0 = first
    index: int
    code: str
    # the wrong field; empty if the entry is not an object
    field: str
    # what was expected and what was received
    detail: str


class ReleaseStamp(TypedDict):
    bundle: str
    snapshot: int
    catalog: int


class Removal(TypedDict):
    # one of unavailable, not_yet_published, expired, excluded, seen, shown, item_cap, blocked_creator, blocked_tag,
    # surface_filter, request_filter, unknown_history
    filter: str
    detail: str


class RowsAnswer(TypedDict):
    accepted: int
    rejected: list[RejectedRow]


class SlateStamp(TypedDict):
    bundle: str
    snapshot: int
    catalog: int
    # version of the business rules applied; null without rules
    rules: str | None


class UbiEventsAnswer(TypedDict):
    accepted: int
    duplicates: int
    rejected: list[RejectedEvent]
    # fields without a place in an event, with the number of events
    not_kept: dict[str, int]


class UserAnswer(TypedDict):
    user_id: str
