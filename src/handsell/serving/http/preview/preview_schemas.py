"""Parameters and answers of previews."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from handsell.serving.http import schemas as s
from handsell.serving.http.answers import Answer, RecommendedItem, SlateStamp

ImaginedEvent = Annotated[str, Field(min_length=3, max_length=400)]
Dial = Annotated[float, Field(ge=0, le=1)]


class PreviewParameters(s.Parameters):
    user_id: s.Id = Field(description="an unknown user is a cold start, not an error")
    surface: s.ShortId = "home"
    count: s.Count | None = None
    filter: s.Filter | None = None
    similar_to: s.Id | None = Field(
        default=None, description="items similar to this one instead, as `GET /v1/similar`, whoever the user is"
    )
    bundle: s.Id | None = Field(
        default=None, description="`live`, or a bundle that this gateway holds: the canary, those of arms"
    )
    arm: s.Id | None = Field(default=None, description="`EXPERIMENT.ARM` whose bundle and settings are used")
    diversity: Dial | None = Field(default=None, description="instead of `reranking.diversity` times strength")
    novelty: Dial | None = Field(default=None, description="instead of `reranking.novelty` times strength")
    exploration: Dial | None = Field(default=None, description="instead of `reranking.exploration.share`")
    events: list[ImaginedEvent] = Field(
        default=[],
        max_length=50,
        description="`TYPE:ITEM_ID`, or `TYPE=VALUE:ITEM_ID`, as if the user had just done this, the oldest first; "
        "nothing is stored",
    )


class PreviewExplainParameters(PreviewParameters):
    item_id: s.Id
    features: Annotated[int, Field(ge=0, le=200, description="contributions listed, the largest first")] = 10


class HistoryEvent(Answer):
    type: str
    item_id: str
    time: str
    imagined: bool = Field(description="one of the parameter `events`")
    title: str | None = Field(description="null for an item without one")


class PreviewSettings(Answer):
    """What re-ranking did with, after strength and changes of the arm."""

    diversity: float
    novelty: float
    exploration: float


class PreviewAnswer(Answer):
    user_id: str
    surface: str
    cold_start: bool
    items: list[RecommendedItem]
    history: list[HistoryEvent] = Field(description="what the models read of the user, the latest first")
    settings: PreviewSettings
    arms: dict[str, str] = Field(description="arm by experiment that the slate is made for")
    bundles: list[str] = Field(description="bundles that `bundle` can name at this gateway, the live one first")
    relaxed: list[str] = Field(description="constraints that could not be kept, the first relaxed first")
    degraded: list[str] = Field(description="parts that failed or were late, and were left out")
    release: SlateStamp
