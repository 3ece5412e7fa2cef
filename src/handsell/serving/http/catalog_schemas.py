"""Bodies and answers of the endpoints of items, users and people.

Fields are read by the rules of tables (handsell.data.catalog_fields), which the bodies leave to the service.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, WrapValidator

from handsell.serving.http.answers import Answer
from handsell.serving.http.schemas import Body, Id, InvalidEntry, Parameters, keep_invalid

MAX_ROWS = 1_000  # items or users in one request

TEXT = {"anyOf": [{"type": ["string", "null"]}, {"type": "integer"}]}
TEXTS = {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": ["string", "integer", "null"]}}]}
TIME = {"type": ["string", "number", "null"]}
FLAG = {"anyOf": [{"type": ["boolean", "string", "null"]}, {"type": "number"}]}
COLUMNS = "; other fields are metadata of any JSON type"


class Row(BaseModel):
    """Fields by name, without a schema for other columns."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the body names."""
        return {**{n: getattr(self, n) for n in type(self).model_fields if n in self.model_fields_set}, **self.extra}

    @property
    def extra(self) -> dict[str, Any]:
        return self.model_extra or {}


class ItemFields(Row):
    """Columns of an item, as in the items table; other fields are metadata of any JSON type."""

    title: Annotated[Any, WithJsonSchema(TEXT)] = None
    creators: Annotated[Any, WithJsonSchema(TEXTS)] = Field(
        None, description="artists, brands, sellers, the primary one first: a list, or text with separators"
    )
    tags: Annotated[Any, WithJsonSchema(TEXTS)] = Field(None, description="likewise")
    text: Annotated[Any, WithJsonSchema(TEXT)] = Field(None, description="free text, not shown in answers with items")
    published_at: Annotated[Any, WithJsonSchema(TIME)] = Field(
        None, description="not recommended before: ISO 8601, or epoch seconds, ms, µs or ns"
    )
    expires_at: Annotated[Any, WithJsonSchema(TIME)] = Field(
        None, description="not recommended from then: likewise; null, 0, year 9999 and infinity mean never"
    )
    available: Annotated[Any, WithJsonSchema(FLAG)] = Field(None, description="false: not recommended; null: available")


class UserFields(Row):
    """Columns of a user, as in the users table, of any JSON type."""


class ItemBody(ItemFields):
    """A whole item, or the fields to change."""

    item_id: Id | None = Field(None, description="may be repeated here; must be that of the URL")


class UserBody(UserFields):
    """A whole user, or the fields to change."""

    user_id: Id | None = Field(None, description="may be repeated here; must be that of the URL")


class ListedItem(ItemFields):
    item_id: Id


class ListedUser(UserFields):
    user_id: Id


class ItemsBody(Body):
    items: list[Annotated[ListedItem, WrapValidator(keep_invalid)]] = Field(
        min_length=1, description=f"at most {MAX_ROWS}; an invalid one is rejected by its index, the others are stored"
    )

    @property
    def rows(self) -> list[Row | InvalidEntry]:
        return [*self.items]


class UsersBody(Body):
    users: list[Annotated[ListedUser, WrapValidator(keep_invalid)]] = Field(
        min_length=1, description=f"at most {MAX_ROWS}; an invalid one is rejected by its index, the others are stored"
    )

    @property
    def rows(self) -> list[Row | InvalidEntry]:
        return [*self.users]


class DeleteParameters(Parameters):
    erase: bool = Field(False, description="also forget everything that is known of this person, everywhere")


class DeleteUserParameters(DeleteParameters):
    user_id: Id


class ItemAnswer(Answer):
    """The current columns of an item, without nulls; times are ISO 8601."""

    model_config = ConfigDict(extra="allow")

    item_id: str
    title: str | None = None
    creators: list[str] | None = None
    tags: list[str] | None = None
    text: str | None = None
    published_at: str | None = None
    expires_at: str | None = None
    available: bool = True


class UserAnswer(Answer):
    """The current columns of a user, without nulls."""

    model_config = ConfigDict(extra="allow")

    user_id: str


class RejectedRow(Answer):
    index: int = Field(description="of the item or user in the request, 0 = first")
    code: str
    field: str = Field(description="the wrong field; empty if the entry is not an object")
    detail: str = Field(description="what was expected and what was received")


class RowsAnswer(Answer):
    accepted: int
    rejected: list[RejectedRow]


class MergeBody(Body):
    visitor_id: Id = Field(description="the `anonymous_id` of earlier requests and events")
    user_id: Id = Field(description="who the visitor turned out to be")


class MergeAnswer(Answer):
    visitor_id: str
    user_id: str
    moved_events: int = Field(description="events of the visitor that now are the user's; 0 if merged before")
    duplicates: int = Field(description="events that both had, which count once")


class ErasureAnswer(Answer):
    user_id: str
    status: Literal["pending"] = Field(description="pending: stored and started; see `pending` for what is left")
    deleted_rows: int = Field(description="rows of this person deleted from the event store")
    pending: list[str] = Field(description="where the person still is, and what removes it")
