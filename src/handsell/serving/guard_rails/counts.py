"""What a gateway has counted per experiment and arm since its last report to the guard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

GROWTH = 1.1  # ratio of neighboring latency classes
FIRST_S = 1e-4
CLASSES = 140  # up to a minute
BINS = 20  # of diversity
FAILURES = ("errors", "degraded")
MIN_SHORT = 0.5  # a slate with a smaller share of the requested items is short
MAX_UNITS = 200_000  # remembered per arm; then each counts as new again

Arms = Mapping[str, str]  # experiment → arm


@dataclass
class ArmCounts:
    """Outcomes of one arm. A unit counts once per report, and for its first slates once at all, so that robots weigh
    no more than others."""

    slates: int = 0
    units: set[int] = field(default_factory=set)
    failed: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in FAILURES})
    latency: Counter[int] = field(default_factory=Counter)  # answers by class
    first_slates: int = 0
    short: int = 0
    diversity: Counter[int] = field(default_factory=Counter)  # first slates by bin

    def merge(self, other: ArmCounts) -> None:
        """Add the counts of another gateway."""
        self.slates += other.slates
        self.units |= other.units
        for name in FAILURES:
            self.failed[name] |= other.failed[name]
        self.latency.update(other.latency)
        self.first_slates, self.short = self.first_slates + other.first_slates, self.short + other.short
        self.diversity.update(other.diversity)

    def share_failed(self, name: str) -> float:
        return len(self.failed[name]) / max(len(self.units), 1)


@dataclass(frozen=True, slots=True)
class SlateOutcome:
    """One answered or failed request."""

    unit: int  # hash of the unit's id
    seconds: float
    failed: bool = False  # answered with an error
    degraded: bool = False
    items: int = 0
    requested: int = 1  # 0: no slate, but a list of the caller
    diversity: float | None = None


Counts = dict[tuple[str, str], ArmCounts]  # by experiment and arm


class OutcomeCounter:
    """Counts the outcomes of a gateway's requests by arm. Used in the gateway's event loop only."""

    def __init__(self) -> None:
        self._counts: Counts = {}
        self._seen: dict[tuple[str, str], set[int]] = {}

    def record(self, arms: Arms, outcome: SlateOutcome) -> None:
        """Count a request in each of its experiments."""
        for key in arms.items():
            self._record(key, outcome)

    def _record(self, key: tuple[str, str], outcome: SlateOutcome) -> None:
        counts = self._counts.setdefault(key, ArmCounts())
        counts.slates += 1
        counts.units.add(outcome.unit)
        counts.latency[find_class(outcome.seconds)] += 1
        if outcome.failed:
            counts.failed["errors"].add(outcome.unit)
            return
        if outcome.degraded:
            counts.failed["degraded"].add(outcome.unit)
        seen = self._seen.setdefault(key, set())
        if not outcome.requested or outcome.unit in seen:
            return
        if len(seen) >= MAX_UNITS:
            seen.clear()
        seen.add(outcome.unit)
        counts.first_slates += 1
        counts.short += outcome.items < MIN_SHORT * outcome.requested
        if outcome.diversity is not None:
            counts.diversity[min(int(min(max(outcome.diversity, 0.0), 1.0) * BINS), BINS - 1)] += 1

    def take(self) -> Counts:
        """Return the counts since the last call."""
        taken, self._counts = self._counts, {}
        return taken

    def put_back(self, counts: Counts) -> None:
        """Add counts that could not be reported."""
        merge_counts(self._counts, [counts])

    def forget(self, experiments: Iterable[str]) -> None:
        """Forget the units of experiments that have ended."""
        ended = set(experiments)
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] not in ended}


def merge_counts(into: Counts, others: Iterable[Counts]) -> Counts:
    for counts in others:
        for key, arm in counts.items():
            into.setdefault(key, ArmCounts()).merge(arm)
    return into


def find_class(seconds: float) -> int:
    """Return the latency class: class k begins at FIRST_S × GROWTH^k."""
    return min(max(int(math.log(max(seconds, FIRST_S) / FIRST_S) / math.log(GROWTH)), 0), CLASSES - 1)
