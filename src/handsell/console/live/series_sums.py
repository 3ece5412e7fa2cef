"""Sums of Prometheus series: totals, shares, means and quantiles by label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]  # name and sorted labels, without `replica`


@dataclass(frozen=True)
class SeriesSums:
    """How much each counter and histogram has grown in some time, and the last value of each gauge."""

    grown: Mapping[Series, float] = field(default_factory=dict)
    gauges: Mapping[Series, float] = field(default_factory=dict)
    seconds: float | None = None  # that they cover; None: since the gateways have started

    def find(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        """Yield labels and value of the series of a name that have these labels."""
        wanted = set(labels.items())
        for pairs, value in self._by_name.get(name, ()):
            if wanted <= set(pairs):
                yield dict(pairs), value

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[Labels, float]]]:
        found: dict[str, list[tuple[Labels, float]]] = {}
        for values in (self.grown, self.gauges):
            for (name, pairs), value in values.items():
                found.setdefault(name, []).append((pairs, value))
        return found

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the series of a name, 0 without any."""
        return sum(value for _, value in self.find(name, **labels))

    def gauge(self, name: str, **labels: str) -> float | None:
        """Return the value of a gauge, None without one that is a number."""
        found = [value for _, value in self.find(name, **labels) if not math.isnan(value)]
        return max(found) if found else None

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Return the sums by the values of a label."""
        sums: dict[str, float] = {}
        for pairs, value in self.find(name, **labels):
            sums[pairs.get(label, "")] = sums.get(pairs.get(label, ""), 0.0) + value
        return sums

    def mean(self, histogram: str, **labels: str) -> float | None:
        """Return the mean of what a histogram has observed, None without observations."""
        count = self.sum(f"{histogram}_count", **labels)
        return self.sum(f"{histogram}_sum", **labels) / count if count else None

    def quantile(self, histogram: str, share: float, **labels: str) -> float | None:
        """Return a quantile of a histogram, interpolated within its bucket; None without observations.

        Above the last finite bound it is that bound: the value is at least as large.
        """
        buckets = self.by(f"{histogram}_bucket", "le", **labels)
        bounds = sorted((float(bound), count) for bound, count in buckets.items())
        total = bounds[-1][1] if bounds else 0.0
        if not total:
            return None
        below, floor = 0.0, 0.0
        for bound, count in bounds:
            if count >= share * total and count > below:
                if math.isinf(bound):
                    return floor
                return floor + (bound - floor) * (share * total - below) / (count - below)
            below, floor = count, bound if math.isfinite(bound) else floor
        return floor
