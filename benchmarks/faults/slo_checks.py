"""Service level checks: each takes an observation and returns what was violated, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.load_generator import Response, percentile_ms


@dataclass(frozen=True)
class Observation:
    """Responses to requests that were in flight when the fault began or sent later, until recovery."""

    begun: float  # start of the fault, s of the monotonic clock
    responses: list[Response]
    deadline_ms: float
    recovered_s: float | None  # until nothing failed, nothing was degraded and all replicas ran; None: never
    notes: dict[str, Any]

    def share(self, condition: Callable[[Response], bool]) -> float:
        return sum(map(condition, self.responses)) / max(len(self.responses), 1)

    def failed(self) -> list[Response]:
        return [response for response in self.responses if not response.ok]

    def p99_ms(self) -> float | None:
        """99th percentile of the latency, without shed requests."""
        return percentile_ms([response for response in self.responses if not response.shed], 99)


SloCheck = Callable[[Observation], str | None]


def check_success_share(least: float) -> SloCheck:
    def check(observed: Observation) -> str | None:
        share = observed.share(lambda response: response.ok)
        return None if share >= least else f"{share:.3%} 2xx"

    return check


def check_p99(deadlines: float) -> SloCheck:
    """The 99th percentile is at most this multiple of the deadline."""

    def check(observed: Observation) -> str | None:
        p99 = observed.p99_ms()
        met = p99 is not None and p99 <= deadlines * observed.deadline_ms
        return None if met else f"p99 {p99 or 0:.0f} ms"

    return check


def check_recovery(limit_s: float) -> SloCheck:
    def check(observed: Observation) -> str | None:
        if observed.recovered_s is None:
            return "did not recover"
        return None if observed.recovered_s <= limit_s else f"recovered after {observed.recovered_s:.1f} s"

    return check


def check_only_in_flight_failed(observed: Observation) -> str | None:
    """No request that was sent after the process had ended failed."""
    ended = observed.begun + observed.notes.get("gone after s", 0.0)
    late = [response for response in observed.failed() if response.sent > ended]
    last = max((response.sent - observed.begun for response in late), default=0.0)
    return f"{len(late)} sent later failed, the last {last:.1f} s after the fault" if late else None


def check_no_failures(observed: Observation) -> str | None:
    failed = observed.failed()
    return f"{len(failed)} not 2xx" if failed else None


def check_flagged(cause: str) -> SloCheck:
    """At least one response names this cause in `degraded`."""

    def check(observed: Observation) -> str | None:
        named = {name for response in observed.responses for name in response.degraded}
        return None if cause in named else f"{cause} not flagged, degraded: {', '.join(sorted(named)) or 'nothing'}"

    return check


def check_failures_are_shed(observed: Observation) -> str | None:
    """Every request without a result got 503 with Retry-After."""
    wrong = [response for response in observed.failed() if not response.shed]
    return f"{len(wrong)} failed without 503 and Retry-After" if wrong else None


def check_note_is_empty(name: str, meaning: str) -> SloCheck:
    """A note that the scenario takes itself is empty."""
    return lambda observed: f"{meaning}: {observed.notes[name]}" if observed.notes.get(name) else None
