"""The report of the data doctor."""

from __future__ import annotations

from collections.abc import Iterable
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


# Error → beginnings of the names of findings that it may cause, which are left out beside it.
CONSEQUENCES = {
    "different item_id": (
        "empty window", "new items", "nothing", "nearly nothing", "deleted items", "unknown item_id", "short slates",
        "everything seen",
    ),
    "different user_id": ("unknown user_id",),
    "no positive weight": ("no events",),
    "thresholds": ("no positive event", "empty window"),
    "unknown event type": ("no events", "no positive event"),
    "time in the future": ("no events", "log too short", "identical times"),
}  # fmt: skip


def sort_problems(found: Iterable[Finding]) -> list[Finding]:
    """Return errors, then warnings, then notes, without the consequences of other errors."""
    found = list(found)
    effects = tuple(
        effect for problem in found if problem.severity == "error" for effect in CONSEQUENCES.get(problem.name, ())
    )
    left = [problem for problem in found if not problem.name.startswith(effects)]
    return sorted(left, key=lambda problem: ("error", "warning", "note").index(problem.severity))


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
