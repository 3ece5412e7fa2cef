"""Definitions of experiments: `[experiments.<name>]`, and of the users who are in none: `[holdout]`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from handsell.core.section import Section
from handsell.serving.guard_rails.config import GuardRails

CONTROL = "control"
MAX_ARMS = 16
SHARES_ADD_UP = 1e-6  # tolerance of sums of shares
NAME = r"^[a-z][a-z0-9_]{0,30}$"
ALWAYS = -(2**63)  # a time before every change, µs
RESERVED_EXPERIMENTS = ("holdout", "canary")  # names that handsell itself writes into impressions
RANK = "rank"  # surface of /v1/rank, which only experiments name
RESERVED_ARMS = ("interleaved", "stopped", "none")

Name = Annotated[str, Field(pattern=NAME)]
Share = Annotated[float, Field(ge=0, le=1)]


class FormerShare(Section):
    """A share until a change."""

    until: datetime = Field(description="time of the change")
    share: Share = Field(description="share before it")


FORMER = (
    "earlier shares, oldest first, such as [{ until = 2026-12-05T09:00:00Z, share = 0.1 }]. Where changes are "
    "recorded, only units of what becomes smaller move; otherwise, units may also move into or out of whatever else "
    "has changed"
)


class Arm(Section):
    """What the units of one arm get; whatever an arm does not set is as for everybody else."""

    share: float = Field(ge=0, le=1, description="share of the experiment's units; the arms' shares add up to 1")
    former: tuple[FormerShare, ...] = Field((), description=FORMER)
    bundle: str | None = Field(None, min_length=1, description="id of the bundle that answers, instead of the live one")
    rules: str | None = Field(
        None, min_length=1, description="file of business rules, relative to the TOML file; `none`: without rules"
    )
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        {}, description="weight of candidate sources in the fusion, such as { item_knn = 2.0 }; 0 drops its influence"
    )
    reranking: dict[str, Any] = Field({}, description="keys of [reranking], such as { diversity = 0.2 }")
    surface: dict[str, Any] = Field({}, description="keys of [surfaces.<name>], for the surfaces of the experiment")

    @property
    def changes(self) -> bool:
        """Whether the arm's units get anything else than control."""
        return bool(self.bundle or self.rules or self.weights or self.reranking or self.surface)


class Experiment(Section):
    """Units are assigned to arms by a hash of their id: the same on every gateway, without a table of users."""

    layer: str = Field(
        "main",
        pattern=NAME,
        description="a unit is in at most one experiment of a layer; experiments of different layers are independent",
    )
    unit: Literal["user", "visitor", "session"] = Field(
        "user",
        description="what is assigned to an arm. user: the user, or the visitor without an account, who keeps the arm "
        "as a user; visitor: the `anonymous_id`; session: the `session_id`. Requests without one are in no arm",
    )
    surfaces: tuple[str, ...] = Field(
        (),
        description="surfaces on which the experiment runs, and `rank` for /v1/rank; empty: all, and /v1/rank if every "
        "change of the arms acts there",
    )
    start: datetime | None = Field(None, description="first time at which it runs, such as `2026-12-01T00:00:00Z`")
    stop: datetime | None = Field(None, description="time from which everybody gets control")
    share: float = Field(
        1.0, gt=0, le=1, description="share of the layer's units that take part; a layer's shares add up to at most 1"
    )
    former: tuple[FormerShare, ...] = Field((), description=FORMER)
    metric: str | None = Field(None, description="event type of the main metric; none: clicks")
    smallest_effect: float = Field(
        0.02,
        gt=0,
        le=1,
        description="smallest relative effect that matters: intervals are narrowest at the sample size that finds it; "
        "set it before the start",
    )
    interleave: tuple[str, ...] = Field(
        (),
        description="two arms whose slates are interleaved (team draft): every unit sees both, and clicks are credited "
        "to the arm that brought the item",
    )
    arms: dict[Name, Arm] = Field(description="at least two arms; control is the arm of this name, or the first one")
    guard_rails: GuardRails = GuardRails()

    @property
    def control(self) -> str:
        """Name of the arm with which the others are compared."""
        return CONTROL if CONTROL in self.arms else next(iter(self.arms))

    @property
    def ranks(self) -> bool:
        """Whether everything that the arms change acts on /v1/rank, which scores a list without re-ranking it."""
        return not self.interleave and not any(arm.rules or arm.reranking or arm.surface for arm in self.arms.values())

    @property
    def shares(self) -> dict[str, float]:
        """Share of the experiment's units by arm."""
        return {name: arm.share for name, arm in self.arms.items()}

    @property
    def start_us(self) -> int | None:
        return None if self.start is None else to_micros(self.start)

    @property
    def stop_us(self) -> int | None:
        return None if self.stop is None else to_micros(self.stop)

    def share_at(self, time: int) -> float:
        """Share of the layer's units at a time (µs), 0 where the experiment does not run."""
        return find_share(self, time) if self.runs_at(time) else 0.0

    def runs_at(self, time: int) -> bool:
        """Whether the experiment runs at a time (µs)."""
        start, stop = self.start_us, self.stop_us
        return (start is None or time >= start) and (stop is None or time < stop)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 2 <= len(self.arms) <= MAX_ARMS:
            raise ValueError(f"arms: expected 2 to {MAX_ARMS} arms; got {len(self.arms)}")
        if taken := [name for name in self.arms if name in RESERVED_ARMS]:
            raise ValueError(f"arms: {taken[0]!r} is reserved for handsell's own records: choose another name")
        if self.start and self.stop and to_micros(self.start) >= to_micros(self.stop):
            raise ValueError(f"start: expected a time before stop ({self.stop}); got {self.start}")
        if abs((total := sum(self.shares.values())) - 1) > SHARES_ADD_UP:
            each = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
            raise ValueError(f"arms: expected shares that add up to 1; got {total:g} ({each})")
        self._check_former()
        if self.interleave and (len(set(self.interleave)) != 2 or not {*self.interleave} <= {*self.arms}):
            raise ValueError(
                f"interleave: expected two different arms of this experiment ({', '.join(self.arms)}); "
                f"got {list(self.interleave)}"
            )
        return self

    def _check_former(self) -> None:
        """The arms' shares add up to 1 at every time."""
        for former in (self.former, *(arm.former for arm in self.arms.values())):
            times = [to_micros(one.until) for one in former]
            if times != sorted(set(times)):
                raise ValueError("former: expected times in order; got others: put the oldest share first")
        for time in sorted({to_micros(one.until) for arm in self.arms.values() for one in arm.former}):
            total = sum(find_share(arm, time - 1) for arm in self.arms.values())
            if abs(total - 1) > SHARES_ADD_UP:
                at = datetime.fromtimestamp(time / 1e6, UTC).isoformat()
                raise ValueError(f"arms: expected former shares that add up to 1 until {at}; got {total:g}")


class HoldoutConfig(Section):
    """Users who are never in an experiment: they get control of everything."""

    share: float = Field(0.0, ge=0, lt=1, description="share of users, the same ones for ever; 0: none")


def find_share(option: Arm | Experiment, time: int) -> float:
    """Return the share at a time (µs), whether or not the experiment runs."""
    return next((one.share for one in option.former if time < to_micros(one.until)), option.share)


def list_changes(experiments: Mapping[str, Experiment]) -> list[int]:
    """Return the times (µs) at which the share of some experiment changes, because it starts, stops or is changed."""
    bounds = {bound for one in experiments.values() for bound in (one.start_us, one.stop_us) if bound is not None}
    changed = {to_micros(former.until) for one in experiments.values() for former in one.former}
    return sorted(bounds | changed)


def to_micros(value: datetime) -> int:
    """Return µs since the epoch; a time without a zone is UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)
