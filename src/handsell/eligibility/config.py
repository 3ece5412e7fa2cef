"""Surfaces and their eligibility rules: `[surfaces.<name>]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section

LONGEST_FILTER = 1_000  # characters of a filter expression


class SlateCap(Section):
    """Limit of slates of this surface for each user, applied by batch jobs (`handsell batch`)."""

    slates: int = Field(1, ge=1, description="greatest number of slates")
    days: float = Field(1.0, gt=0, description="period in days")


class ItemCap(Section):
    """Limit of impressions of one item for each user, over all surfaces."""

    times: int = Field(3, ge=1, description="greatest number of impressions of an item")
    days: float = Field(7.0, gt=0, description="period in days")


class Surface(Section):
    """A place where slates are shown, such as home or email."""

    count: int = Field(10, ge=1, le=30, description="default slate length")
    repeat: Literal["exclude", "allow", "after_days"] = Field("exclude", description="may seen items be shown again?")
    after_days: float = Field(
        7.0, ge=0, description="with repeat = after_days: days until a seen item may be shown again"
    )
    category_window: int | None = Field(None, ge=0, le=30, description="overrides reranking.category_window")
    category_most: int | None = Field(None, ge=1, le=30, description="overrides reranking.category_most")
    filter: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_FILTER,
        description="filter expression that every item must satisfy, such as `not item.explicit`; see docs/filters.md",
    )
    only: tuple[str, ...] = Field(
        (), description="only candidates from one of these sources, such as bought_together; empty: all"
    )
    ranked: bool = Field(True, description="false keeps the order of the sources, as the ranker is trained for home")
    substitutes: Literal["keep", "same_creator", "same_tag"] = Field(
        "keep",
        description="exclude substitutes for the items of the request's basket: "
        "those of the same creator or with a shared tag",
    )
    seen_on: tuple[str, ...] = Field(
        (), description="exclude items that were shown on these surfaces within `shown_days`"
    )
    shown_days: float = Field(7.0, gt=0, description="days for which an item shown on one of `seen_on` is excluded")
    item_cap: ItemCap | None = Field(None, description="limit of impressions of one item for each user; none: no limit")
    reuse_seconds: float = Field(
        30.0,
        ge=0,
        le=3_600,
        description="seconds for which an answer may be given again where nothing that it depends on has changed, "
        "apart from the time; 0: every answer is computed",
    )
    cap: SlateCap | None = Field(None, description="limit of slates for each user in batch jobs; none: no limit")

    @property
    def uses_impressions(self) -> bool:
        """Whether eligibility depends on the user's impressions."""
        return bool(self.seen_on) or self.item_cap is not None
