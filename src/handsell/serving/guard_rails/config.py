"""Settings of guard rails: `[experiments.<name>.guard_rails]`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from handsell.core.section import Section

Loss = Annotated[float, Field(gt=0, le=1)]


class GuardRails(Section):
    """When an arm is stopped: its users get control within seconds. Every limit is relative to control's answers."""

    enabled: bool = Field(True, description="false: no arm is stopped, except one whose bundle cannot be served")
    max_errors: float = Field(0.01, gt=0, le=1, description="largest rise of the share of requests that fail")
    max_degraded: float = Field(0.05, gt=0, le=1, description="largest rise of the share of degraded answers")
    max_latency_ratio: float = Field(2.0, gt=1, description="largest p99 latency, relative to control's")
    max_short: float = Field(
        0.1, gt=0, le=1, description="largest rise of the share of users whose first slate has less than half the items"
    )
    max_diversity_loss: float = Field(0.2, gt=0, le=1, description="largest loss of diversity within first slates")
    max_click_loss: float = Field(
        0.3,
        gt=0,
        le=1,
        description="largest relative loss of the share of users who click in their first slate; 1: none",
    )
    max_event_loss: dict[str, Loss] = Field(
        {}, description="the same for event types, such as { like = 0.5 }; only events that name the slate count"
    )
    click_window_s: float = Field(
        600.0, gt=0, description="events within this time after a user's first slate are credited to it"
    )
    false_stops: float = Field(
        0.01, gt=0, lt=1, description="probability with which an arm that is as good as control is ever stopped"
    )


class CanaryConfig(Section):
    """A candidate bundle that a share of users gets: `handsell bundles promote BUNDLE --canary 5%`."""

    hours: float = Field(2.0, ge=0, description="time before the candidate can be promoted; `--for`")
    min_slates: int = Field(1_000, ge=0, description="slates of the candidate before it can be promoted")
    max_click_loss: float = Field(
        0.2,
        gt=0,
        le=1,
        description="the candidate is promoted when the always-valid 95 % lower bound of its click rate, relative to "
        "the live bundle's, is above 1 minus this; 1: clicks do not count",
    )
    patience: float = Field(
        4.0,
        ge=1,
        description="a candidate that is undecided after this multiple of its time, and an hour, is rolled back",
    )
    guard_rails: GuardRails = GuardRails()
