"""The report of the data doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

EXAMPLES = 3

Severity = Literal["error", "warning", "note"]


@dataclass
class Finding:
    """One kind of problem; `message` says what it is and what to do."""

    name: str
    severity: Severity
    message: str
    count: int = 0
    examples: list[dict] = field(default_factory=list)  # at most EXAMPLES rows of the source
    table: str = "events"  # of the examples


@dataclass(frozen=True, slots=True)
class Spread:
    """Events per user or per item."""

    median: float
    p90: float
    most: int


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Number of events of a type, and its configured weight as text; None for a type that is not configured."""

    events: int
    weight: str | None


@dataclass(frozen=True)
class DoctorReport:
    """Counts of the source data; users and items are those with an interaction."""

    source: str
    ordered: bool
    events: int
    interactions: int  # of a type with seen = true
    users: int
    items: int
    described_items: int
    described_users: int
    first: str | None  # ISO 8601
    last: str | None
    days: float
    pairs: int  # distinct (user, item)
    density: float  # pairs / (users × items)
    types: dict[str, TypeCount]
    split: str  # split.kind, which defines `cold_*`
    per_user: Spread
    per_item: Spread
    cold_users: float  # share of the test window's users without earlier events; leave_last_k: of users with too few
    cold_items: float  # the same for items
    untouched_items: float  # share of the items table without an interaction
    problems: list[Finding]
    advice: list[str]

    @property
    def ok(self) -> bool:
        """Whether training is possible with this data."""
        return not any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict:
        return {**asdict(self), "ok": self.ok}
