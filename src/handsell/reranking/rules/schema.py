"""A rules file as models: every key of every kind of rule, with its range. An unknown key is an error."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from handsell.core.section import Section
from handsell.eligibility.config import LONGEST_FILTER

LONGEST_SLATE = 30
MOST_RULES = 64  # in force at once: an item's memberships are the bits of one number
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)$")


def _hours(value: str) -> str:
    found = HOURS.match(value)
    if found is None or (found[3] == "24" and found[4] != "00") or value[:5] == value[6:]:
        raise ValueError("expected two different times of day, such as '18:00-24:00' or '22:00-06:00'")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone such as 'UTC' or 'Europe/Berlin'") from None
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Position = Annotated[int, Field(ge=1, le=LONGEST_SLATE)]


class Rule(Section):
    """Which items it speaks of, and when it is in force."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", description="how answers, metrics and errors call it")
    enabled: bool = True
    items: str | None = Field(None, min_length=1, max_length=LONGEST_FILTER, description="a filter expression")
    newer_than_days: float | None = Field(None, gt=0, description="published within so many days before the request")
    creator_items_at_most: int | None = Field(None, ge=1, description="of creators with at most so many items")
    surfaces: tuple[str, ...] = Field((), description="empty: all")
    from_: datetime | None = Field(None, alias="from", description="in time_zone where it names none")
    until: datetime | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    hours: Annotated[str, AfterValidator(_hours)] | None = None
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    experiment: str | None = None
    arm: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.items is None and self.newer_than_days is None and self.creator_items_at_most is None:
            raise ValueError("expected at least one of items, newer_than_days and creator_items_at_most; got none")
        if self.from_ and self.until and self.moment(self.from_) >= self.moment(self.until):
            raise ValueError(f"expected from before until; got from {self.from_} until {self.until}")
        if self.experiment is not None and self.arm is None:
            raise ValueError(f"expected arm beside experiment = {self.experiment!r}; got none")
        return self

    def moment(self, value: datetime) -> int:
        """µs; in the rule's time zone where the value names none."""
        aware = value if value.tzinfo is not None else value.replace(tzinfo=ZoneInfo(self.time_zone))
        return round(aware.timestamp()) * 1_000_000


class Boost(Rule):
    """relevance · factor + add, relevance being 0 to 1 within the request."""

    kind: Literal["boost"]
    factor: float = Field(1.0, ge=1, le=20)
    add: float = Field(0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.factor == 1 and self.add == 0:
            raise ValueError("expected a factor above 1 or an add above 0; got neither")
        return self


class Bury(Rule):
    """relevance · factor - subtract."""

    kind: Literal["bury"]
    factor: float = Field(1.0, ge=0, le=1)
    subtract: float = Field(0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.factor == 1 and self.subtract == 0:
            raise ValueError("expected a factor below 1 or a subtract above 0; got neither")
        return self


class Pin(Rule):
    """The best of the items stands at this position."""

    kind: Literal["pin"]
    position: Position


class Include(Rule):
    """At least one of the items stands in the first `within` positions."""

    kind: Literal["include"]
    within: Position | None = None


class Exclude(Rule):
    """None of the items is shown."""

    kind: Literal["exclude"]


class Quota(Rule):
    """A share of the impressions in the first `within` positions: of the day, or of each slate by itself."""

    kind: Literal["quota"]
    share: Share | None = Field(None, description="both the least and the most")
    min_share: Share | None = None
    max_share: Share | None = None
    per: Literal["day", "slate"] = "day"
    within: Position | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = {name for name in ("share", "min_share", "max_share") if getattr(self, name) is not None}
        if not given or ("share" in given and len(given) > 1):
            got = ", ".join(sorted(given)) or "none"
            raise ValueError(f"expected share alone, or min_share, max_share or both; got {got}")
        if self.least > self.most:
            raise ValueError(f"expected min_share up to max_share; got {self.least} and {self.most}")
        return self

    @property
    def least(self) -> float:
        return next((value for value in (self.share, self.min_share) if value is not None), 0.0)

    @property
    def most(self) -> float:
        return next((value for value in (self.share, self.max_share) if value is not None), 1.0)


AnyRule = Annotated[Boost | Bury | Pin | Include | Exclude | Quota, Field(discriminator="kind")]
KINDS: dict[str, type[Rule]] = {
    "boost": Boost,
    "bury": Bury,
    "pin": Pin,
    "include": Include,
    "exclude": Exclude,
    "quota": Quota,
}


class Experiment(Section):
    """Users are shared out among arms by a hash of their id and the experiment's name."""

    arms: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(min_length=2)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(sum(self.arms.values()) - 1) > 1e-6:
            raise ValueError(f"expected shares that add up to 1; got {sum(self.arms.values()):g}")
        return self


class RulesFile(Section):
    """What a file holds."""

    experiments: dict[str, Experiment] = Field(default_factory=dict)
    rule: tuple[AnyRule, ...] = ()
