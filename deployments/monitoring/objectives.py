"""Service-level objectives: the share of bad answers or of bad time, as queries."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from handsell.serving.telemetry.observability import SECONDS

FILE = Path(__file__).with_name("objectives.toml")
API = 'route=~"/v1/.*"'
LISTS = 'route=~"/v1/(.*/)?(recommendations|similar|trending|popular)"'
STALE = "handsell:events_stale"  # 1 while the stream processor is too far behind


class Target(BaseModel):
    model_config = ConfigDict(extra="forbid")
    target: float = Field(gt=0, lt=1)


class Limited(Target):
    limit_s: float = Field(gt=0)


class Latency(Limited):
    @field_validator("limit_s")
    @classmethod
    def is_a_bound(cls, limit_s: float) -> float:
        if limit_s not in SECONDS:
            raise ValueError(f"expected a bound of the buckets of handsell_request_seconds: {SECONDS}")
        return limit_s


class Objectives(BaseModel):
    model_config = ConfigDict(extra="forbid")
    window_days: int = Field(ge=1, le=90)
    runbooks: str
    availability: Target
    latency: Latency
    degraded: Target
    freshness: Limited


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective; `bad` is the share of bad answers or time over a window that replaces WINDOW."""

    name: str
    target: float
    bad: str
    meaning: str

    @property
    def budget(self) -> float:
        """Share that may be bad."""
        return round(1 - self.target, 9)

    def share(self, window: str) -> str:
        return self.bad.replace("WINDOW", window)

    def record(self, window: str) -> str:
        """Name of the recorded share."""
        return f"handsell:{self.name}_bad:share_{window}"


def read_objectives(path: Path = FILE) -> Objectives:
    """Read the file; ends the program with one sentence for each invalid value."""
    try:
        return Objectives.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise SystemExit(f"{path}: " + "; ".join(wrong)) from None


def list_objectives(said: Objectives) -> tuple[Objective, ...]:
    """Where nothing is bad yet, the share is 0; without traffic there is none."""
    requests, slates = f"sum by (job) (rate(handsell_requests_total{{{API}}}[WINDOW]))", _rate("handsell_slates_total")
    failed = f'sum by (job) (rate(handsell_requests_total{{{API},status=~"5.."}}[WINDOW]))'
    timely = f'sum by (job) (rate(handsell_request_seconds_bucket{{{LISTS},le="{said.latency.limit_s}"}}[WINDOW]))'
    timed = f"sum by (job) (rate(handsell_request_seconds_count{{{LISTS}}}[WINDOW]))"
    return (
        Objective(
            "availability", said.availability.target, f"({failed} or 0 * {requests}) / ({requests} > 0)",
            "answers of the API are not 5xx",
        ),
        Objective(
            "latency", said.latency.target, f"1 - {timely} / ({timed} > 0)",
            f"lists are answered within {said.latency.limit_s * 1e3:.0f} ms",
        ),
        Objective(
            "degraded", said.degraded.target, f"{_rate('handsell_degraded_slates_total')} / ({slates} > 0)",
            "lists are made with every part of the funnel",
        ),
        Objective(
            "freshness", said.freshness.target, f"avg_over_time({STALE}[WINDOW])",
            f"of the time, no event waits longer than {said.freshness.limit_s:.0f} s for the stream processor",
        ),
    )  # fmt: skip


def _rate(counter: str) -> str:
    return f"sum by (job) (rate({counter}[WINDOW]))"
