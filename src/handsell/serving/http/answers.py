"""Answers of the HTTP API (v1). The OpenAPI document and every answer are generated from these models.

Fields that were not set are not written: an item has `metadata` only if the request includes it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from handsell.eligibility.filter_reasons import FILTERS


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_json(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, exclude_unset=True)


class Reason(Answer):
    code: str
    item_id: str | None = Field(default=None, description="the item of the user's history that the reason refers to")
    title: str | None = Field(
        default=None, description="of that item; only if the request includes metadata and the item has a title"
    )


class Item(Answer):
    item_id: str
    rank: int = Field(description="1 = top")
    score: float = Field(description="0 to 1")
    metadata: dict[str, Any] | None = Field(
        default=None,
        description="only if the request includes it; without nulls. Decimals are exact text, binary is base64, times "
        "are ISO 8601, durations are seconds, NaN and infinity are null",
    )


class RecommendedItem(Item):
    sources: list[str] = Field(description="retrievers that returned the item")
    reason: Reason


class ReleaseStamp(Answer):
    bundle: str
    snapshot: int
    catalog: int


class SlateStamp(ReleaseStamp):
    rules: str | None = Field(description="version of the business rules applied; null without rules")


class Debug(Answer):
    reused: Literal["nothing", "candidates", "slate"] = Field(
        description="what was computed for an earlier request: nothing, the ranked candidates, or the whole slate"
    )
    age_ms: int = Field(description="milliseconds since that was computed; 0 for nothing")


class RecommendationsAnswer(Answer):
    recommendation_id: str
    surface: str
    cold_start: bool
    items: list[RecommendedItem]
    relaxed: list[str] = Field(description="constraints that could not be kept, the first relaxed first")
    next_cursor: str | None = Field(description="requests the next page of this feed; null at its end")
    degraded: list[str] = Field(description="parts that failed or were late, and were left out")
    release: SlateStamp
    arms: dict[str, str] = Field(
        default_factory=dict,
        description="arm by experiment, only if the request is in one; `interleaved` where two arms share the slate",
    )
    debug: Debug | None = Field(default=None, description="only if the request includes it")
    _json: bytes | None = PrivateAttr(default=None)  # of this answer, if it has been written from parts

    def to_json(self) -> bytes:
        return super().to_json() if self._json is None else self._json

    def write_from(self, written: dict[Any, Any]) -> None:
        """Write the JSON with the parts that answers with one slate have in common, kept in `written`.

        The slate's id and the cursor differ. Neither has a character that JSON escapes; within other texts every
        quotation mark is escaped, so that the name of a field is found nowhere else.
        """
        name, cursor = b'"next_cursor":', b"null"
        if self.next_cursor is not None:
            cursor = b'"' + self.next_cursor.encode() + b'"'
        begin = b'{"recommendation_id":"' + self.recommendation_id.encode()
        parts = written.get(("json", self.cold_start))
        if parts is None:
            before, found, after = self.to_json().partition(name + cursor)
            if not found or not before.startswith(begin):
                raise ValueError(f"expected an answer that begins with its id and has a cursor, got {before!r:.100}")
            parts = written["json", self.cold_start] = before[len(begin) :] + name, after
        self._json = begin + parts[0] + cursor + parts[1]


class RankedItem(Item):
    sources: list[str] = Field(description="retrievers that have a score for the item")


class RankAnswer(Answer):
    recommendation_id: str | None = Field(default=None, description="only if the request says how many are `shown`")
    items: list[RankedItem]
    unknown_item_ids: list[str]
    degraded: list[str]
    release: ReleaseStamp
    arms: dict[str, str] = Field(
        default_factory=dict, description="arm by experiment, only if the request is in one that acts on `rank`"
    )


class ListAnswer(Answer):
    items: list[Item]
    release: ReleaseStamp


class Removal(Answer):
    filter: str = Field(description=f"one of {', '.join(FILTERS)}")
    detail: str


class ExplainedEligibility(Answer):
    eligible: bool
    removed_by: list[Removal] = Field(description="every filter that removes the item")


class ExplainedSource(Answer):
    source: str
    outcome: Literal["returned", "beyond_k", "no_evidence", "failed"]
    rank: int | None = Field(description="among eligible items, 1 = the source's best; null without evidence")
    k: int = Field(description="items requested from this source")
    score: float | None = Field(description="on the source's own scale")


class ExplainedCandidates(Answer):
    as_if_eligible: bool = Field(description="a filter removes the item; the values are those without the filter")
    sources: list[ExplainedSource]
    fused_score: float | None
    rank: int | None = Field(description="in the fused order of the sources; null where none returned it")
    of: int
    passed_on: int = Field(description="candidates passed on to ranking")


class Contribution(Answer):
    feature: str
    value: float | None = Field(description="null if unknown")
    contribution: float


class ExplainedRanking(Answer):
    as_if_candidate: bool = Field(description="the item is not a candidate; the values are those it would have as one")
    rank: int
    of: int
    passed_on: int = Field(description="candidates passed on to re-ranking")
    score: float | None = Field(description="0 to 1")
    raw_score: float | None = Field(description="base + all contributions; decides the order")
    base: float | None
    contributions: list[Contribution] = Field(description="the largest first; empty without a ranker")
    other_features: float | None = Field(description="sum of the contributions that are not listed")


class ExplainedReranking(Answer):
    before: int = Field(description="rank in the ranking stage")
    place: int | None = Field(
        description="in the order of all re-ranked candidates, of which the slate is the beginning"
    )
    moved_by: list[str] = Field(description="settings without which the place would be another")
    place_without: dict[str, int | None]
    reason: Reason | None


class ExplainAnswer(Answer):
    user_id: str
    item_id: str
    surface: str
    count: int
    cold_start: bool
    time: str = Field(description="as-of time of the explanation")
    outcome: Literal[
        "shown", "filtered", "not_retrieved", "beyond_candidates", "cut_by_ranking", "below_the_slate", "unknown"
    ]
    position: int | None = Field(description="in the slate, 1 = top")
    eligibility: ExplainedEligibility | None
    candidates: ExplainedCandidates | None
    ranking: ExplainedRanking | None
    reranking: ExplainedReranking | None = Field(description="null if the item did not reach re-ranking")
    degraded: list[str]
    release: ReleaseStamp


class BlocksAnswer(Answer):
    user_id: str
    creators: list[str]
    tags: list[str]


class RejectedEvent(Answer):
    index: int = Field(description="of the event in the request, 0 = first")
    code: str
    field: str = Field(description="the wrong field; empty if the event is not an object")
    detail: str = Field(description="what was expected and what was received")


class EventsAnswer(Answer):
    accepted: int
    duplicates: int
    rejected: list[RejectedEvent]


class RefusedBundle(Answer):
    bundle: str
    reason: str


class Health(Answer):
    status: str
    release: ReleaseStamp | None = None
    stages: dict[str, str] | None = None
    refused: RefusedBundle | None = None
