"""What an import has read, written, skipped and not kept; nothing that is read is missing in these counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["events", "items", "users", "other"]
KINDS: tuple[Kind, ...] = ("events", "items", "users", "other")
REASONS = 100  # different reasons that are told apart, by kind
MORE = "other reasons"


class SourcePlace(NamedTuple):
    """Where a record stands in the source."""

    file: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number:,}"


@dataclass
class Tally:
    """Counts by kind of record. For each kind, read = written + merged + skipped."""

    read: Counter[Kind] = field(default_factory=Counter)
    written: Counter[Kind] = field(default_factory=Counter)
    merged: Counter[Kind] = field(
        default_factory=Counter
    )  # into an earlier record of the same id, or into several rows
    skipped: dict[Kind, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    first: dict[tuple[Kind, str], SourcePlace] = field(default_factory=dict)  # of each reason
    dropped: Counter[str] = field(default_factory=Counter)  # fields of records that are written, by name
    notes: list[str] = field(default_factory=list)

    def skip(self, kind: Kind, reason: str, place: SourcePlace) -> None:
        """Count a record that is not written."""
        reasons = self.skipped[kind]
        reason = reason if reason in reasons or len(reasons) < REASONS else MORE
        reasons[reason] += 1
        self.first.setdefault((kind, reason), place)

    def drop(self, kind: str, name: str) -> None:
        """Count a field without a place in the tables, of a record that is written."""
        key = f"{kind}: {name}"
        self.dropped[key if key in self.dropped or len(self.dropped) < REASONS else f"{kind}: {MORE}"] += 1

    def count_skipped(self, kind: Kind) -> int:
        return sum(self.skipped[kind].values()) if kind in self.skipped else 0

    def to_lines(self) -> Iterator[str]:
        """Describe the counts, one line each."""
        for kind in KINDS:
            if not self.read[kind]:
                continue
            merged = f", {self.merged[kind]:,} merged into others" if self.merged[kind] else ""
            skipped = f", {self.count_skipped(kind):,} skipped" if self.count_skipped(kind) else ""
            yield f"{kind}: {self.read[kind]:,} read, {self.written[kind]:,} written{merged}{skipped}"
            for reason, count in self.skipped.get(kind, Counter[str]()).most_common():
                yield f"  skipped {count:,}: {reason} (first: {self.first[kind, reason]})"
        for name, count in self.dropped.most_common():
            yield f"not kept: {name}, in {count:,} records"
        yield from self.notes

    def to_json(self) -> dict[str, Any]:
        """Return the same counts for programs."""
        return {
            "kinds": {
                kind: {
                    "read": self.read[kind],
                    "written": self.written[kind],
                    "merged": self.merged[kind],
                    "skipped": [
                        {"reason": reason, "count": count, "first": str(self.first[kind, reason])}
                        for reason, count in self.skipped.get(kind, Counter[str]()).most_common()
                    ],
                }
                for kind in KINDS
                if self.read[kind]
            },
            "not_kept": dict(self.dropped),
            "notes": self.notes,
        }
