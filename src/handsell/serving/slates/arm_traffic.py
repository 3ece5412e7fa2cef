"""The arms of a gateway's requests, and what these requests cost."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram

from handsell.config import Config
from handsell.core.hashing import hash_unit
from handsell.experiments.state import ExperimentStates
from handsell.experiments.traffic import IN_NONE, Participation, Traffic, find_units
from handsell.serving.changes.identities import Identities
from handsell.serving.guard_rails.counts import OutcomeCounter, SlateOutcome
from handsell.serving.http.queries import make_user_key
from handsell.serving.telemetry.observability import SECONDS

ARM = ("experiment", "arm")


@dataclass(slots=True)
class ArmRequest:
    """One request in experiments, and its answer once it is known."""

    given: Participation
    degraded: bool = False
    items: int = 0
    requested: int = 1
    diversity: float | None = None


class ArmMetrics:
    """Counts and times requests by experiment and arm."""

    def __init__(self, registry: CollectorRegistry):
        self.requests = Counter("handsell_experiment_requests", "Requests by arm", ARM, registry=registry)
        self.errors = Counter("handsell_experiment_errors", "Requests that failed, by arm", ARM, registry=registry)
        self.degraded = Counter("handsell_experiment_degraded", "Degraded answers by arm", ARM, registry=registry)
        self.seconds = Histogram(
            "handsell_experiment_seconds", "Time of an answer by arm", ARM, registry=registry, buckets=SECONDS
        )


class ArmTraffic:
    """Assigns requests to arms by the newest state of experiments and the bundles that are held."""

    def __init__(self, config: Config, identities: Identities, registry: CollectorRegistry, outcomes: OutcomeCounter):
        self._config, self._identities, self._outcomes = config, identities, outcomes
        self._basis: tuple[ExperimentStates, Collection[str]] = ExperimentStates(), ()
        self.traffic = Traffic(config, *self._basis)
        self.metrics = ArmMetrics(registry)

    def follow(self, states: ExperimentStates, held: Collection[str]) -> None:
        """Apply the state of experiments, and the bundles of arms that this gateway holds."""
        if (states, held) != self._basis:
            self._basis = states, held
            self.traffic = Traffic(self._config, states, held)

    def assign(
        self, user_id: str | None, anonymous_id: str | None, session_id: str | None, surface: str
    ) -> Participation:
        """Return the arms of a request; of a merged person those of the first slate."""
        if self.traffic.is_empty:
            return IN_NONE
        key, visitor = make_user_key(user_id, anonymous_id), make_user_key(None, anonymous_id)
        units = find_units(self._identities, key, visitor, session_id)
        return self.traffic.assign(units, surface, time.time_ns() // 1_000)

    @contextmanager
    def observe(self, given: Participation) -> Iterator[ArmRequest]:
        """Count and time a request in each of its arms, unless the caller's input is wrong (4xx)."""
        started, request = time.perf_counter(), ArmRequest(given)
        try:
            yield request
        except Exception as error:
            if getattr(error, "status", 500) >= 500:
                self._count(request, time.perf_counter() - started, failed=True)
            raise
        self._count(request, time.perf_counter() - started, failed=False)

    def _count(self, request: ArmRequest, seconds: float, failed: bool) -> None:
        for arm in request.given.list_arms().items():
            self.metrics.requests.labels(*arm).inc()
            self.metrics.seconds.labels(*arm).observe(seconds)
            if failed:
                self.metrics.errors.labels(*arm).inc()
            if request.degraded:
                self.metrics.degraded.labels(*arm).inc()
        outcome = SlateOutcome(
            hash_unit(request.given.person), seconds, failed, request.degraded, request.items, request.requested,
            request.diversity,
        )  # fmt: skip
        compared = {name: arm for name, arm in request.given.arms.items() if name not in request.given.stopped}
        self._outcomes.record(compared, outcome)
