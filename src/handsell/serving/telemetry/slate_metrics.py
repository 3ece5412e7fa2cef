"""List metrics of served slates as Prometheus series, computed when a slate is logged as an impression.

Means are rates: `rate(handsell_slate_diversity_sum) / rate(handsell_slate_diversity_count)`. Exposure is over the last
WINDOW slates of this gateway. Definitions: docs/list-metrics.md.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from handsell.catalog.snapshot import Snapshot
from handsell.evaluation.list_metrics import gini_of_counts, self_information
from handsell.reranking.similarity import build_tag_vectors
from handsell.serving.telemetry.observability import keep_series

WINDOW = 5_000  # slates over which exposure is counted
USERS = 20_000  # users whose last slate is kept
SHARES = tuple(n / 10 for n in range(1, 11))
BITS = (2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 16, 20)
POPULARITY = "item_positives_total"  # positive events so far


@dataclass(frozen=True, slots=True)
class SlateFigures:
    """What is measured of a slate by itself."""

    diversity: float | None  # None for less than 2 items
    novelty: float  # bits


class SlateMetrics:
    """Records served slates; gauges are computed when they are scraped."""

    def __init__(self, registry: CollectorRegistry):
        self.diversity = Histogram(
            "handsell_slate_diversity", "1 - mean cosine of tags within a slate", ("surface",), registry=registry,
            buckets=SHARES,
        )  # fmt: skip
        self.novelty = Histogram(
            "handsell_slate_novelty_bits", "Mean self-information of a slate's items", ("surface",), registry=registry,
            buckets=BITS,
        )  # fmt: skip
        self.repeats = Histogram(
            "handsell_slate_repeat_rate", "Share of a slate that the user was shown just before", ("surface",),
            registry=registry, buckets=(0, *SHARES),
        )  # fmt: skip
        self.explored = Counter(
            "handsell_explored_items", "Items shown because they were drawn at random", ("surface",), registry=registry
        )
        for metric in (self.diversity, self.novelty, self.repeats, self.explored):
            keep_series(metric)
        gini = Gauge("handsell_exposure_gini", "Inequality of exposure in the last slates", registry=registry)
        gini.set_function(self._gini)
        coverage = Gauge("handsell_exposure_coverage", "Share of items in the last slates", registry=registry)
        coverage.set_function(self._coverage)
        self._window: deque[np.ndarray] = deque()
        self._count = np.zeros(0, np.int64)  # by item, in the window
        self._last: OrderedDict[str, np.ndarray] = OrderedDict()
        self._surprise: tuple[Snapshot | None, np.ndarray] = None, np.zeros(0)

    def measure(self, item: np.ndarray, snapshot: Snapshot) -> SlateFigures:
        """Measure a slate of items (n,) int32, n ≥ 1, without padding."""
        bits = self._bits(snapshot)[np.minimum(item, len(snapshot.base))]
        return SlateFigures(diversity(item, snapshot) if len(item) > 1 else None, float(bits.mean()))

    def record(
        self, surface: str, user_id: str | None, item: np.ndarray, explored: int, snapshot: Snapshot,
        measure: Callable[[], SlateFigures] | None = None,
    ) -> float | None:  # fmt: skip
        """Record one slate of items (n,) int32, without padding; returns its diversity, None for less than 2 items.

        `measure` returns the figures of the slate where they may be known.
        """
        if not len(item):
            return None
        figures = self.measure(item, snapshot) if measure is None else measure()
        self.explored.labels(surface).inc(explored)
        self.novelty.labels(surface).observe(figures.novelty)
        if figures.diversity is not None:
            self.diversity.labels(surface).observe(figures.diversity)
        self._expose(item, len(snapshot))
        if user_id is not None:
            self._remember(surface, user_id, item)
        return figures.diversity

    def _bits(self, snapshot: Snapshot) -> np.ndarray:
        """(I + 1,) self-information of the bundle's items, computed once; the last is that of all new items."""
        base = snapshot.base
        if self._surprise[0] is not base:
            names, popularity = base.value_names, np.zeros(len(base))
            if POPULARITY in names:
                popularity = np.nan_to_num(np.asarray(base.values[:, names.index(POPULARITY)], float))
            bits = self_information(popularity)
            self._surprise = base, np.append(bits, bits.max(initial=0.0))
        return self._surprise[1]

    def _expose(self, item: np.ndarray, size: int) -> None:
        if len(self._count) < size:
            self._count = np.concatenate([self._count, np.zeros(size - len(self._count), np.int64)])
        elif len(self._count) > size:  # an earlier bundle: item numbers never change, so counts stay valid
            self._window = deque(shown[shown < size] for shown in self._window)
            self._count = np.bincount(np.concatenate([*self._window, item[:0]]), minlength=size)
        self._window.append(item)
        self._count[item] += 1
        if len(self._window) > WINDOW:
            self._count[self._window.popleft()] -= 1

    def _remember(self, surface: str, user_id: str, item: np.ndarray) -> None:
        before = self._last.pop(user_id, None)
        if before is not None:
            repeated = 1.0
            if before is not item:
                known = set(before.tolist())
                repeated = sum(one in known for one in item.tolist()) / len(item)
            self.repeats.labels(surface).observe(repeated)
        self._last[user_id] = item
        if len(self._last) > USERS:
            self._last.popitem(last=False)

    def _gini(self) -> float:
        return gini_of_counts(self._count)

    def _coverage(self) -> float:
        return float((self._count > 0).mean()) if len(self._count) else float("nan")


def diversity(item: np.ndarray, snapshot: Snapshot) -> float:
    """1 − mean pairwise cosine of the tags of items (n,), n ≥ 2."""
    vectors = build_tag_vectors(snapshot, item[None])[0]
    total = vectors.sum(axis=0, dtype=np.float64)
    pairs = len(item) * (len(item) - 1)
    return float(1 - (total @ total - np.count_nonzero(vectors.any(axis=1))) / pairs)
