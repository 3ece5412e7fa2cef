"""Prometheus metrics of a gateway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import lru_cache

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from handsell.core.batches import NONE, Candidates, RulesStamp
from handsell.experiments.state import ExperimentStates

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.3, 2.5, 5.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64)
SERIES = 1_024  # of one metric that are looked up fast


class Metrics:
    """One registry per gateway process; every name begins with `handsell_`.

    `replica` is added as a label to every series: a proxy passes a scrape to one of its replicas, and without the label
    their counters would read as one that is reset again and again.
    """

    def __init__(self, replica: str = "") -> None:
        self.registry, self._replica = CollectorRegistry(), replica
        r = self.registry
        self.request_seconds = Histogram(
            "handsell_request_seconds", "HTTP requests", ("route",), registry=r, buckets=SECONDS
        )
        self.requests = Counter("handsell_requests", "HTTP requests", ("route", "status"), registry=r)
        self.stage_seconds = Histogram(
            "handsell_stage_seconds", "One batch in a stage", ("stage",), registry=r, buckets=SECONDS
        )
        self.stage_calls = Counter(
            "handsell_stage_calls", "Calls of stages in other processes", ("way",), registry=r
        )  # socket, or serve where no socket is open
        self.batch_size = Histogram("handsell_batch_size", "Requests in one batch", registry=r, buckets=COUNTS)
        self.waiting = Gauge("handsell_waiting_requests", "Requests that wait for a free slot", registry=r)
        self.degraded = Counter("handsell_degraded", "Answers without a part that failed", ("cause",), registry=r)
        self.degraded_slates = Counter(
            "handsell_degraded_slates", "Slates without at least one part that failed", ("surface",), registry=r
        )
        self.relaxed = Counter(
            "handsell_relaxed", "Answers in which a constraint was relaxed", ("constraint",), registry=r
        )
        self.candidates = Counter("handsell_candidates", "Candidates found, by source", ("source",), registry=r)
        self.items_removed = Counter(
            "handsell_items_removed", "Catalog items that a filter removes from a request, by filter",
            ("filter",), registry=r,
        )  # fmt: skip
        self.slates = Counter("handsell_slates", "Slates answered", ("surface",), registry=r)
        self.reused = Counter(
            "handsell_reused_slates", "Slates that were computed for an earlier request, or whose candidates were",
            ("surface", "part"), registry=r,
        )  # fmt: skip
        self.reuse_bytes = Gauge("handsell_reuse_bytes", "Memory of answers that may be given again", registry=r)
        self.cold_starts = Counter("handsell_cold_starts", "Slates for users without any known events", registry=r)
        self.short_slates = Counter("handsell_short_slates", "Slates shorter than requested", registry=r)
        self.impressions_lost = Counter(
            "handsell_impressions_lost", "Served slates that did not reach the log", registry=r
        )
        self.append_seconds = Histogram(
            "handsell_append_seconds", "From the hand-over to the event store until the commit", ("table",),
            registry=r, buckets=SECONDS,
        )  # fmt: skip
        self.waiting_events = Gauge("handsell_waiting_events", "Events that wait for their commit", registry=r)
        self.waiting_slates = Gauge("handsell_waiting_slates", "Slates that wait to be stored", registry=r)
        self.events = Counter("handsell_events", "Events received, by outcome", ("outcome",), registry=r)
        self.unknown_items = Counter(
            "handsell_events_unknown_items", "Accepted events of items that are not in the catalog", registry=r
        )
        self.features_age = Histogram(
            "handsell_user_features_age_seconds", "Time since the user's last folded event", registry=r,
            buckets=(60, 600, 3_600, 86_400, 7 * 86_400, 28 * 86_400),
        )  # fmt: skip
        self.bundle = Gauge("handsell_bundle_info", "1 for the bundle served", ("bundle", "snapshot"), registry=r)
        self.refused = Gauge(
            "handsell_bundle_refused", "1 for a live bundle that this gateway refuses to serve", ("bundle",), registry=r
        )
        self.previous_bundle_answers = Counter(
            "handsell_previous_bundle_answers", "Requests answered from the previous bundle",
            registry=r,
        )  # fmt: skip
        self.rules = Gauge("handsell_rules_info", "1 for the business rules applied", ("version",), registry=r)
        self.rules_refused = Gauge(
            "handsell_rules_refused", "1 for an invalid rules file; the earlier rules are still applied",
            ("version",), registry=r,
        )  # fmt: skip
        self.rules_share = Gauge(
            "handsell_rules_share", "Share of impressions so far of a daily quota", ("rule",), registry=r
        )
        self._rules = ("", "")
        self.stopped_arms = Gauge(
            "handsell_experiment_stopped", "1 for an arm whose users get control; arm * is the whole experiment",
            ("experiment", "arm"), registry=r,
        )  # fmt: skip
        self.canary = Gauge(
            "handsell_canary", "Share of users that get the candidate bundle; 0 when it has ended",
            ("bundle", "state"), registry=r,
        )  # fmt: skip
        self.changes_age = Gauge(
            "handsell_catalog_changes_age_seconds", "Time since catalog changes were read from the event store",
            registry=r,
        )  # fmt: skip
        self.new_items = Gauge("handsell_catalog_new_items", "Items that came after the bundle", registry=r)
        self.bundle_age = Gauge("handsell_bundle_age_seconds", "Time since the bundle was made", registry=r)
        self.data_age = Gauge(
            "handsell_snapshot_age_seconds", "Time since the last event in the item snapshot", registry=r
        )
        self.clock_offset = Gauge("handsell_clock_offset_seconds", "Wall time minus service time", registry=r)
        for metric in (self.request_seconds, self.requests, self.stage_seconds, self.slates, self.reused,
                       self.degraded_slates, self.candidates, self.items_removed, self.append_seconds):  # fmt: skip
            keep_series(metric)

    def watch_catalog(self, age_s: Callable[[], float], new_items: Callable[[], float]) -> None:
        """Publish the time since catalog changes were read, and the number of items that came after the bundle."""
        self.changes_age.set_function(age_s)
        self.new_items.set_function(new_items)

    def set_ages(self, made_us: int, as_of_us: int, offset_us: int) -> None:
        """Set the times (µs) from which the ages of bundle and snapshot count, and the service clock's offset."""
        self.bundle_age.set_function(lambda: time.time() - made_us / 1e6)
        self.data_age.set_function(lambda: time.time() - offset_us / 1e6 - as_of_us / 1e6)
        self.clock_offset.set(offset_us / 1e6)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count and time one HTTP request."""
        self.requests.labels(route, status).inc()
        self.request_seconds.labels(route).observe(seconds)

    @contextmanager
    def time_append(self, table: str, rows: int = 0) -> Iterator[None]:
        """Time an append of `rows` events, which wait for their commit meanwhile; failures are timed, too."""
        started = time.perf_counter()
        self.waiting_events.inc(rows)
        try:
            yield
        finally:
            self.waiting_events.dec(rows)
            self.append_seconds.labels(table).observe(time.perf_counter() - started)

    def observe_reads(self, seconds: float, ages_s: Iterable[float]) -> None:
        """Time the reads of users' rows and events; the ages are those of the rows."""
        self.stage_seconds.labels("features").observe(seconds)
        for age_s in ages_s:
            self.features_age.observe(age_s)

    def count_candidates(self, candidates: Candidates) -> None:
        """Count candidates by source."""
        held = np.isfinite(candidates.source_rank)
        padded = candidates.item == NONE
        if padded.any():
            held &= ~padded[:, :, None]
        by_source = held.reshape(-1, held.shape[2]).T.copy()  # NumPy counts rows fast
        for name, column in zip(candidates.sources, by_source, strict=True):
            self.candidates.labels(name).inc(int(np.count_nonzero(column)))

    def count_removed(self, counts: Mapping[str, int]) -> None:
        """Count items by the filter that removed them."""
        for name, count in counts.items():
            self.items_removed.labels(name).inc(count)

    def count_answer(
        self, surface: str, cold: bool, short: bool, degraded: Iterable[str], relaxed: Iterable[str] = ()
    ) -> None:
        self.slates.labels(surface).inc()
        self.cold_starts.inc(cold)
        self.short_slates.inc(short)
        causes = list(degraded)
        self.degraded_slates.labels(surface).inc(bool(causes))
        for cause in causes:
            self.degraded.labels(cause).inc()
        for constraint in relaxed:
            self.relaxed.labels(constraint).inc()

    def count_reused(self, surface: str, part: str) -> None:
        """Count a slate by what of it was reused."""
        if part != "nothing":
            self.reused.labels(surface, part).inc()

    def set_rules(self, stamp: RulesStamp | None) -> None:
        """Publish the version of the rules that slates were made with."""
        if stamp is None:
            return
        if (stamp.version, stamp.refused) != self._rules:
            self._rules = (stamp.version, stamp.refused)
            self.rules.clear()
            self.rules.labels(stamp.version).set(1)
            self.rules_refused.clear()
            if stamp.refused:
                self.rules_refused.labels(stamp.refused).set(1)
            self.rules_share.clear()
        for rule, share in stamp.shares:
            self.rules_share.labels(rule).set(share)

    def set_experiments(self, states: ExperimentStates) -> None:
        """Publish stopped arms and experiments, and the canary."""
        self.stopped_arms.clear()
        for name, state in states.experiments.items():
            for arm in [*state.stopped_arms, *["*"] * state.stopped]:
                self.stopped_arms.labels(name, arm).set(1)
        self.canary.clear()
        if states.canary is not None:
            share = states.canary.share if states.canary.is_running else 0.0
            self.canary.labels(states.canary.bundle, states.canary.state).set(share)

    def render(self) -> bytes:
        """Text exposition format."""
        return generate_latest(LabeledRegistry(self.registry, self._replica) if self._replica else self.registry)


def keep_series(metric: MetricWrapperBase) -> None:
    """Look the series of a metric up without a lock and new texts; for metrics that are never cleared."""
    metric.labels = lru_cache(SERIES)(metric.labels)  # type: ignore[method-assign]


class LabeledRegistry(CollectorRegistry):
    """The series of another registry, with the label `replica`."""

    def __init__(self, registry: CollectorRegistry, replica: str):
        super().__init__()
        self._registry, self._replica = registry, replica

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            labeled = copy(family)
            labeled.samples = [
                sample._replace(labels={**sample.labels, "replica": self._replica}) for sample in family.samples
            ]
            yield labeled
