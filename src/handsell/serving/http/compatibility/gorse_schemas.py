"""Bodies and answers of the Gorse-compatible API, with Gorse's names; names in bodies may be in any case."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from handsell.migration.gorse.fields import rename
from handsell.serving.http.schemas import Id, Parameters

MOST_LISTED = 1_000  # entries of one answer
N = Annotated[int, Field(ge=1, le=MOST_LISTED, description="number of entries")]
Offset = Annotated[int, Field(ge=0, le=100_000, description="entries left out before them")]


class GorseBody(BaseModel):
    """A record of Gorse. Fields that Gorse does not have are kept, or named in the refusal."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, given: Any) -> Any:
        return rename(given) if isinstance(given, dict) else given

    @property
    def record(self) -> dict[str, Any]:
        """The fields that the body names."""
        named = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {**named, **(self.model_extra or {})}


class GorseFeedbackBody(GorseBody):
    FeedbackType: Any = Field(None, description="an event type of the configuration")
    UserId: Any = None
    ItemId: Any = None
    Timestamp: Any = Field(None, description="default: now")
    Value: Any = Field(None, description="0: none")
    Comment: Any = None


class GorseItemPatch(GorseBody):
    """Fields of an item to change; null and absent fields stay."""

    IsHidden: bool | None = None
    Categories: list[str] | None = None
    Timestamp: Any = None
    Labels: Any = None
    Comment: str | None = None


class GorseItemBody(GorseItemPatch):
    ItemId: Id


class GorseUserPatch(GorseBody):
    """Fields of a user to change; null and absent fields stay."""

    Labels: Any = None
    Subscribe: list[str] | None = None
    Comment: str | None = None


class GorseUserBody(GorseUserPatch):
    UserId: Id


class GorseListParameters(Parameters):
    """Parameters of lists; those that Gorse does not have are refused."""

    n: N = 10
    offset: Offset = 0


class GorsePublicParameters(GorseListParameters):
    user_id: Id | None = Field(None, alias="user-id", description="leave out items that this user has seen")


class GorseRecommendParameters(GorseListParameters):
    category: list[str] = Field(default_factory=list, max_length=20, description="items that have all of these")
    write_back_type: str | None = Field(
        None, alias="write-back-type", description="store the items as events of this type"
    )
    write_back_delay: str | None = Field(None, alias="write-back-delay", description="0s; other delays are refused")


class GorsePageParameters(Parameters):
    n: N = 10
    cursor: str = Field("", max_length=40, description="that of the previous page")


class GorseItemPageParameters(GorsePageParameters):
    q: str = Field("", max_length=200, description="text that titles contain, in upper or lower case")


class GorseAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GorseSuccess(GorseAnswer):
    RowAffected: int
    NotKept: list[str] | None = Field(None, description="fields that have no place here, if there are any")


class GorseScore(GorseAnswer):
    Id: str
    Score: float


class GorseItem(GorseAnswer):
    ItemId: str
    IsHidden: bool
    Categories: list[str]
    Timestamp: str
    Labels: Any = None
    Comment: str


class GorseUser(GorseAnswer):
    UserId: str
    Labels: Any = None
    Comment: str
    Subscribe: list[str] | None = None


class GorseFeedback(GorseAnswer):
    FeedbackType: str
    UserId: str
    ItemId: str
    Value: float
    Timestamp: str
    Comment: str = Field(description="always empty: events have no comment")


class GorseItemPage(GorseAnswer):
    Cursor: str = Field(description="of the next page; empty at the end")
    Items: list[GorseItem]


class GorseUserPage(GorseAnswer):
    Cursor: str = Field(description="of the next page; empty at the end")
    Users: list[GorseUser]


class GorseFeedbackPage(GorseAnswer):
    Cursor: str = Field(description="of the next page; empty at the end")
    Feedback: list[GorseFeedback]


class GorseHealth(GorseAnswer):
    Ready: bool
    DataStoreError: str | None
    CacheStoreError: str | None
    DataStoreConnected: bool
    CacheStoreConnected: bool


class GorseIds(RootModel[list[str]]):
    """Ids of items, best first."""


class GorseScores(RootModel[list[GorseScore]]):
    """Items with scores, best first."""


class GorseRecommendations(RootModel[list[str] | list[GorseScore]]):
    """Ids of items; with scores where the header `X-API-Version` is 2."""


class GorseFeedbackList(RootModel[list[GorseFeedback]]):
    """Feedback of one user."""
