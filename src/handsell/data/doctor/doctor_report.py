"""What the doctor found, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

EXAMPLES = 3

Severity = Literal["error", "warning", "note"]


@dataclass
class Finding:
    """One kind of trouble: `says` tells what it is and what to do."""

    name: str
    severity: Severity
    says: str
    count: int = 0
    examples: list[dict] = field(default_factory=list)  # rows as they came, at most EXAMPLES


@dataclass(frozen=True, slots=True)
class Spread:
    """Events per user or per item."""

    median: float
    p90: float
    most: int


@dataclass(frozen=True, slots=True)
class TypeCount:
    """Events of one type, and the weight that the config gives it, in words; None where it names no such type."""

    events: int
    weight: str | None


@dataclass(frozen=True)
class DoctorReport:
    """Counts are of events as they came; users and items are those with an interaction."""

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
    split: str  # kind of split that `cold_*` refers to
    per_user: Spread
    per_item: Spread
    cold_users: float  # by_time: share of the test window's users without earlier event; leave_last_k: with too few
    cold_items: float  # the same of items
    untouched_items: float  # share of the described items that nobody has touched
    problems: list[Finding]
    verdicts: list[str]

    @property
    def ok(self) -> bool:
        """Whether the data can be trained on."""
        return not any(problem.severity == "error" for problem in self.problems)

    def as_dict(self) -> dict:
        return {**asdict(self), "ok": self.ok}
