"""The recent past of the service's own metrics, from answers of `/metrics` that are read again and again.

Each answer is that of one gateway replica, which its label `replica` names. What its counters have grown since its last
answer belongs to the minute in which it was read. Of gauges the last value is kept, the mean of the replicas.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from prometheus_client.parser import text_string_to_metric_families

from handsell.console.live.series_sums import Series, SeriesSums

MINUTE_S = 60.0
KEPT = 360  # minutes
SHORT = 60  # minutes up to which each of them is a point
FORGET_S = 300.0  # after which a replica that has not been read is no longer counted
READ = (
    "handsell_slates", "handsell_slate_diversity", "handsell_slate_novelty_bits", "handsell_slate_repeat_rate",
    "handsell_exposure_gini", "handsell_exposure_coverage", "handsell_explored_items", "handsell_cold_starts",
    "handsell_short_slates", "handsell_degraded", "handsell_degraded_slates", "handsell_relaxed",
    "handsell_candidates", "handsell_requests", "handsell_request_seconds", "handsell_stage_seconds",
    "handsell_append_seconds", "handsell_waiting_requests", "handsell_waiting_events", "handsell_events",
    "handsell_impressions_lost", "handsell_lag_events", "handsell_lag_seconds", "handsell_store_bytes",
    "handsell_store_rows", "handsell_disk_bytes", "handsell_disk_free_bytes", "handsell_state_age_seconds",
    "handsell_bundle_info", "handsell_bundle_refused", "handsell_bundle_age_seconds", "handsell_snapshot_age_seconds",
    "handsell_catalog_changes_age_seconds", "handsell_experiment_requests", "handsell_experiment_stopped",
    "handsell_canary",
)  # fmt: skip
GAUGES = {"gauge", "unknown"}
Point = tuple[float, SeriesSums]  # time in s, and what was counted from then on


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of one gateway replica."""

    replica: str
    counters: dict[Series, float]
    gauges: dict[Series, float]


@dataclass(slots=True)
class _Minute:
    began: float
    grown: dict[Series, float] = field(default_factory=dict)
    gauges: dict[Series, dict[str, float]] = field(default_factory=dict)  # by replica


@dataclass(slots=True)
class _Replica:
    seen: float
    last: Scrape


def parse_scrape(text: str) -> Scrape:
    """Read an answer of `/metrics`; raises ValueError if it is no Prometheus text."""
    counters: dict[Series, float] = {}
    gauges: dict[Series, float] = {}
    replica = ""
    for family in text_string_to_metric_families(text):
        if family.name not in READ:
            continue
        into = gauges if family.type in GAUGES else counters
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            replica = sample.labels.get("replica", replica)
            labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "replica"))
            into[sample.name, labels] = sample.value
    return Scrape(replica, counters, gauges)


class ServiceSeries:
    """Keeps KEPT minutes; `add` takes an answer and the time (s) at which it was read."""

    def __init__(self) -> None:
        self._minutes: deque[_Minute] = deque(maxlen=KEPT)
        self._replicas: dict[str, _Replica] = {}
        self._points: dict[tuple[int, int], Point] = {}  # finished ones, by step and number
        self._names: dict[Series, Series] = {}  # one object for each series, however many minutes have it
        self.since: float | None = None

    @property
    def replicas(self) -> int:
        """Gateway replicas that have answered lately."""
        return len(self._replicas)

    def add(self, scrape: Scrape, now: float) -> None:
        self.since = now if self.since is None else self.since
        if not self._minutes or now >= self._minutes[-1].began + MINUTE_S:
            self._minutes.append(_Minute(now - now % MINUTE_S))
        minute, before = self._minutes[-1], self._replicas.get(scrape.replica)
        if before is not None:
            for series, value in scrape.counters.items():
                earlier = before.last.counters.get(series, 0.0)
                # a counter that has fallen was reset by a restart of its process
                if grown := value - earlier if value >= earlier else value:
                    name = self._names.setdefault(series, series)
                    minute.grown[name] = minute.grown.get(name, 0.0) + grown
        for series, value in scrape.gauges.items():
            name = self._names.setdefault(series, series)
            minute.gauges.setdefault(name, {})[scrape.replica] = value
        self._replicas[scrape.replica] = _Replica(now, scrape)
        for gone in [replica for replica, one in self._replicas.items() if now - one.seen > FORGET_S]:
            del self._replicas[gone]

    def count_since_start(self) -> SeriesSums:
        """Return what the replicas have counted since each of them started."""
        grown: dict[Series, float] = {}
        for one in self._replicas.values():
            for series, value in one.last.counters.items():
                grown[series] = grown.get(series, 0.0) + value
        return SeriesSums(grown, self._last_gauges())

    def count_recent(self, minutes: int) -> SeriesSums:
        """Return what was counted in the last minutes, at most since the first answer."""
        recent = list(self._minutes)[-minutes:]
        seconds = 0.0 if not recent or self.since is None else self._end() - max(recent[0].began, self.since)
        return SeriesSums(_add_up(recent), self._last_gauges(), seconds)

    @property
    def step(self) -> int:
        """Minutes of a point of a chart: few enough points to draw, and the first soon after the start."""
        return 1 if len(self._minutes) <= SHORT else 5

    def list_points(self) -> Iterator[Point]:
        """Yield each `step` minutes in which something was read, oldest first; the time is the beginning.

        The first and the last may cover less: what was read of them.
        """
        step_s, end, known = self.step * MINUTE_S, self._end(), self._points
        self._points = {}
        for number, part in groupby(list(self._minutes), lambda minute: int(minute.began // step_s)):
            begins = number * step_s
            point = known.get((self.step, number))
            if point is None:
                minutes = list(part)
                seconds = min(begins + step_s, end) - max(begins, self.since or 0.0)
                point = begins, SeriesSums(_add_up(minutes), _average_gauges(minutes[-1]), seconds)
            if begins + step_s <= self._minutes[-1].began:  # nothing is added to it any more
                self._points[self.step, number] = point
            yield point

    def _end(self) -> float:
        return max((one.seen for one in self._replicas.values()), default=0.0)

    def _last_gauges(self) -> dict[Series, float]:
        found: dict[Series, list[float]] = {}
        for one in self._replicas.values():
            for series, value in one.last.gauges.items():
                found.setdefault(series, []).append(value)
        return {series: _mean(values) for series, values in found.items()}


def _add_up(minutes: Iterable[_Minute]) -> dict[Series, float]:
    total: dict[Series, float] = {}
    for minute in minutes:
        for series, value in minute.grown.items():
            total[series] = total.get(series, 0.0) + value
    return total


def _average_gauges(minute: _Minute) -> dict[Series, float]:
    return {series: _mean(list(values.values())) for series, values in minute.gauges.items()}


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
