"""What the HTTP API answers (v1). The OpenAPI document is made from these models, and so is every answer.

A field that was not set is not written: `metadata` of an item is there only when it was asked for.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from handsell.eligibility.filter_reasons import FILTERS


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_json(self) -> bytes:
        return self.__pydantic_serializer__.to_json(self, exclude_unset=True)


class Reason(Answer):
    code: str
    item_id: str | None = Field(default=None, description="the item of the user's history that the reason speaks of")


class Item(Answer):
    item_id: str
    rank: int = Field(description="1 = top")
    score: float = Field(description="0 to 1")
    metadata: dict[str, Any] | None = Field(default=None, description="only when asked for")


class RecommendedItem(Item):
    sources: list[str] = Field(description="the retrievers that found it")
    reason: Reason


class ReleaseStamp(Answer):
    bundle: str
    snapshot: int
    catalog: int


class SlateStamp(ReleaseStamp):
    rules: str | None = Field(description="version of the business rules in force; null where there are none")


class RecommendationsAnswer(Answer):
    recommendation_id: str
    surface: str
    cold_start: bool
    items: list[RecommendedItem]
    relaxed: list[str] = Field(description="constraints on the slate that could not hold, the first to give way first")
    next_cursor: str | None = Field(description="gives the next page of this feed; null at its end")
    degraded: list[str] = Field(description="what failed or was too late, and was left out")
    release: SlateStamp


class RankedItem(Item):
    sources: list[str] = Field(description="the retrievers that know it")


class RankAnswer(Answer):
    items: list[RankedItem]
    unknown_item_ids: list[str]
    degraded: list[str]
    release: ReleaseStamp


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
    k: int = Field(description="items asked of this source")
    score: float | None = Field(description="on the source's own scale")


class ExplainedCandidates(Answer):
    as_if_eligible: bool = Field(description="a filter removes the item: this is what would be without it")
    sources: list[ExplainedSource]
    fused_score: float | None
    rank: int | None = Field(description="in the fused order of the sources; null where none returned it")
    of: int
    passed_on: int = Field(description="so many go on to ranking")


class Contribution(Answer):
    feature: str
    value: float | None = Field(description="null where it is unknown")
    contribution: float


class ExplainedRanking(Answer):
    as_if_candidate: bool = Field(description="the item is no candidate: this is what the ranker would say if it were")
    rank: int
    of: int
    passed_on: int = Field(description="so many go on to re-ranking")
    score: float | None = Field(description="0 to 1")
    raw_score: float | None = Field(description="base + all contributions; what is ordered by")
    base: float | None
    contributions: list[Contribution] = Field(description="the largest first; empty without a ranker")
    other_features: float | None = Field(description="sum of the contributions that are not listed")


class ExplainedReranking(Answer):
    before: int = Field(description="rank with which the item came")
    place: int | None = Field(description="in the order of re-ranking, of which the slate is the beginning")
    moved_by: list[str] = Field(description="rules without which the place would be another")
    place_without: dict[str, int | None]
    reason: Reason | None


class ExplainAnswer(Answer):
    user_id: str
    item_id: str
    surface: str
    count: int
    cold_start: bool
    time: str = Field(description="as of which everything is said")
    outcome: Literal[
        "shown", "filtered", "not_retrieved", "beyond_candidates", "cut_by_ranking", "below_the_slate", "unknown"
    ]
    position: int | None = Field(description="in the slate, 1 = top")
    eligibility: ExplainedEligibility | None
    candidates: ExplainedCandidates | None
    ranking: ExplainedRanking | None
    reranking: ExplainedReranking | None = Field(description="null where the item did not come that far")
    degraded: list[str]
    release: ReleaseStamp


class BlocksAnswer(Answer):
    user_id: str
    creators: list[str]
    tags: list[str]


class Rejected(Answer):
    index: int
    code: str
    detail: str


class EventsAnswer(Answer):
    accepted: int
    duplicates: int
    rejected: list[Rejected]


class RefusedBundle(Answer):
    bundle: str
    reason: str


class Health(Answer):
    status: str
    release: ReleaseStamp | None = None
    stages: dict[str, str] | None = None
    refused: RefusedBundle | None = None
