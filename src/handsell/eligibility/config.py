"""Surfaces, and what may be shown on each: `[surfaces.<name>]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from handsell.core.section import Section

LONGEST_FILTER = 1_000  # characters of a filter expression


class SlateCap(Section):
    """How many slates of this surface a user gets at most; kept by batch jobs (`handsell batch`)."""

    slates: int = Field(1, ge=1, description="slates of this surface")
    days: float = Field(1.0, gt=0, description="in as many days")


class ItemCap(Section):
    """How often a user is shown one item at most, counting every surface."""

    times: int = Field(3, ge=1, description="impressions of an item")
    days: float = Field(7.0, gt=0, description="in as many days")


class Surface(Section):
    """A place where slates are shown."""

    count: int = Field(10, ge=1, le=30, description="slate length when the caller does not say")
    repeat: Literal["exclude", "allow", "after_days"] = Field("exclude", description="may seen items come back?")
    after_days: float = Field(7.0, ge=0, description="with repeat = after_days: quiet days before an item may return")
    category_window: int | None = Field(None, ge=0, le=30, description="instead of reranking.category_window")
    category_most: int | None = Field(None, ge=1, le=30, description="instead of reranking.category_most")
    filter: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_FILTER,
        description="expression that every item shown here passes, such as `not item.explicit`: docs/filters.md",
    )
    only: tuple[str, ...] = Field(
        (), description="sources of which one must have found an item for it to come here, such as bought_together"
    )
    ranked: bool = Field(True, description="false keeps the order of the sources: the ranker was trained for home")
    substitutes: Literal["keep", "same_creator", "same_tag"] = Field(
        "keep", description="what in place of the request's basket, rather than beside it, does not come here"
    )
    seen_on: tuple[str, ...] = Field(
        (), description="surfaces, this one too where it is named, whose shown items do not come here for `shown_days`"
    )
    shown_days: float = Field(7.0, gt=0, description="how long an item shown on one of `seen_on` stays away")
    item_cap: ItemCap | None = Field(None, description="how often one item is shown to a user; none: no limit")
    cap: SlateCap | None = Field(None, description="how many slates of a batch surface a user gets; none: no limit")

    @property
    def remembers(self) -> bool:
        """What a user was shown matters here."""
        return bool(self.seen_on) or self.item_cap is not None
