"""What callers are promised of a fault, as checks of what was seen of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.load_generator import Answer, p


@dataclass(frozen=True)
class Seen:
    """The answers from the fault on: what was under way then, and what was sent until all was well for a while."""

    begun: float
    answers: list[Answer]
    deadline_ms: float
    full_s: float | None  # until nothing failed, nothing was degraded and all replicas were back; None: never
    notes: dict[str, Any]

    def share(self, what: Callable[[Answer], bool]) -> float:
        return sum(map(what, self.answers)) / max(len(self.answers), 1)

    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.ok]

    def p99(self) -> float | None:
        """Of what was not told to come back."""
        return p([answer for answer in self.answers if not answer.shed], 99)


Promise = Callable[[Seen], str | None]  # what is broken, or None


def answered(least: float) -> Promise:
    def check(seen: Seen) -> str | None:
        share = seen.share(lambda answer: answer.ok)
        return None if share >= least else f"{share:.3%} 2xx"

    return check


def quick(deadlines: float) -> Promise:
    def check(seen: Seen) -> str | None:
        p99 = seen.p99()
        kept = p99 is not None and p99 <= deadlines * seen.deadline_ms
        return None if kept else f"p99 {p99 or 0:.0f} ms"

    return check


def full_within(limit_s: float) -> Promise:
    def check(seen: Seen) -> str | None:
        if seen.full_s is None:
            return "not full again"
        return None if seen.full_s <= limit_s else f"full after {seen.full_s:.1f} s"

    return check


def only_in_flight(seen: Seen) -> str | None:
    """Whatever was sent when the process was gone is answered."""
    late = [answer for answer in seen.failed() if answer.sent > seen.begun + seen.notes.get("gone after s", 0.0)]
    last = max((answer.sent - seen.begun for answer in late), default=0.0)
    return f"{len(late)} sent later failed, the last {last:.1f} s after" if late else None


def no_5xx(seen: Seen) -> str | None:
    failed = seen.failed()
    return f"{len(failed)} not 2xx" if failed else None


def flagged(cause: str) -> Promise:
    """Answers say what they lack."""

    def check(seen: Seen) -> str | None:
        named = {name for answer in seen.answers for name in answer.degraded}
        return None if cause in named else f"{cause} not flagged, degraded: {', '.join(sorted(named)) or 'nothing'}"

    return check


def told_to_come_back(seen: Seen) -> str | None:
    wrong = [answer for answer in seen.failed() if not answer.shed]
    return f"{len(wrong)} neither answered nor told when to come back" if wrong else None


def noted(name: str, what: str) -> Promise:
    """A note of the drill itself that has to be empty."""
    return lambda seen: f"{what}: {seen.notes[name]}" if seen.notes.get(name) else None
