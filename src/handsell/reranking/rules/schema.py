"""The parts of a rules file that do not depend on the kind of a rule: selection of items, scope, experiments."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from handsell.core.section import Section
from handsell.eligibility.config import LONGEST_FILTER

LONGEST_SLATE = 30
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)$")


def _check_hours(value: str) -> str:
    found = HOURS.match(value)
    if found is None or (found[3] == "24" and found[4] != "00") or value[:5] == value[6:]:
        raise ValueError("expected two different times of day, such as '18:00-24:00' or '22:00-06:00'")
    return value


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone such as 'UTC' or 'Europe/Berlin'") from None
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Position = Annotated[int, Field(ge=1, le=LONGEST_SLATE)]


class Rule(Section):
    """Keys of every rule. A kind derives its own config class from this one."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", description="name in answers, metrics and errors")
    kind: str = Field(description="one of the registered kinds")
    enabled: bool = Field(True, description="`false` keeps a rule in the file without applying it")
    items: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_FILTER,
        description='[filter expression](filters.md), such as `"item.year >= 2024 and not item.explicit"`',
    )
    newer_than_days: float | None = Field(
        None, gt=0, description="items published at most this many days before the request"
    )
    creator_items_at_most: int | None = Field(
        None, ge=1, description="items whose creator has at most this many items in the catalog"
    )
    surfaces: tuple[str, ...] = Field((), description="surfaces on which the rule applies; empty: all")
    from_: datetime | None = Field(
        None, alias="from", description="first day or time at which the rule applies, such as `2026-07-01`"
    )
    until: datetime | None = Field(None, description="day or time from which the rule no longer applies")
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        (), description='days of the week, such as `["mon", "fri"]`; empty: all'
    )
    hours: Annotated[str, AfterValidator(_check_hours)] | None = Field(
        None,
        description='such as `"18:00-24:00"`; hours past midnight (`"22:00-06:00"`) belong to the day on which they '
        "begin",
    )
    time_zone: Annotated[str, AfterValidator(_check_zone)] = Field(
        "UTC", description="time zone of `from`, `until`, `days`, `hours` and of a daily quota"
    )
    experiment: str | None = Field(
        None, description="experiment of `arm`; may be omitted if the file has exactly one experiment"
    )
    arm: str | None = Field(None, description="apply the rule only to users in this arm of the experiment")

    @model_validator(mode="after")
    def _check_scope(self) -> Self:
        if self.items is None and self.newer_than_days is None and self.creator_items_at_most is None:
            raise ValueError("expected at least one of items, newer_than_days and creator_items_at_most; got none")
        if self.from_ and self.until and self.to_micros(self.from_) >= self.to_micros(self.until):
            raise ValueError(f"expected from before until; got from {self.from_} until {self.until}")
        if self.experiment is not None and self.arm is None:
            raise ValueError(f"expected arm beside experiment = {self.experiment!r}; got none")
        return self

    def to_micros(self, value: datetime) -> int:
        """Return µs since the epoch; a value without a zone is in the rule's time zone."""
        aware = value if value.tzinfo is not None else value.replace(tzinfo=ZoneInfo(self.time_zone))
        return round(aware.timestamp()) * 1_000_000

    def summary(self) -> str:
        """Return what the rule does in a few words, for tables: by default its own keys with their values."""
        shared = Rule.model_fields
        return ", ".join(f"{key} {getattr(self, key)}" for key in type(self).model_fields if key not in shared)


class RuleExperiment(Section):
    """Users are assigned to arms by a hash of their id and the experiment's name."""

    arms: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(min_length=2)

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if abs(sum(self.arms.values()) - 1) > 1e-6:
            raise ValueError(f"expected shares that add up to 1; got {sum(self.arms.values()):g}")
        return self
