"""The book of a replay: every contender's lists are scored chunk by chunk and kept as per-request arrays."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import Candidates, Requests
from handsell.core.errors import TrainingError
from handsell.evaluation import list_metrics
from handsell.evaluation.metrics import Relevant, gains, hit_rate, mrr, ndcg, recall

TOP = 10  # the slate that every metric but deep recall looks at
DEPTHS = (10, 50, 1000)  # of recall
HEADLINE = f"ndcg@{TOP}"
POPULARITY = "popularity"  # the retriever that says what was to be expected anyway


@dataclass(frozen=True, slots=True)
class ModelScores:
    """What one contender did on R requests."""

    kind: str  # retriever, blend, ranker, funnel, oracle or other
    depth: int  # length of its lists
    scores: dict[str, np.ndarray]  # metric → (R,) float, NaN where undefined
    items: np.ndarray  # (R, TOP) int32
    whole: dict[str, float]  # metric → value of all lists together: coverage, exposure

    @property
    def coverage(self) -> float:
        return self.whole[f"coverage@{TOP}"]


@dataclass(frozen=True, slots=True)
class SourceHits:
    """What one source brought into the candidate union."""

    returned: float  # candidates per request
    hits: int  # relevant items that it returned
    unique_hits: int  # … and no other source did
    unique_share: float  # of all hits of the union


@dataclass(frozen=True, slots=True)
class Replay:
    """R requests, by contender."""

    user: np.ndarray  # (R,) int32
    models: dict[str, ModelScores]
    sources: dict[str, SourceHits]
    segments: dict[str, np.ndarray]  # name → (R,) bool
    degraded: dict[str, int] = field(default_factory=dict)  # stage → requests in whose chunk it failed
    relevant: int = 0  # relevant items over all requests
    cold_relevant: int = 0  # … that had no event in the fit window
    seconds: dict[str, float] = field(default_factory=dict)  # contender → time taken
    curve: dict[str, ModelScores] = field(default_factory=dict)  # other ways of re-ranking what the ranker gave

    def __len__(self) -> int:
        return len(self.user)

    def of_kind(self, kind: str) -> list[str]:
        return [name for name, c in self.models.items() if c.kind == kind]

    def scores(self, metric: str) -> dict[str, np.ndarray]:
        """(R,) by contender, for those that have the metric."""
        return {name: c.scores[metric] for name, c in self.models.items() if metric in c.scores}


class ReplayScorer:
    """`open` a chunk, `note` every contender's answer to it, `close` to score them; `replay` at the end."""

    def __init__(self, catalog: np.ndarray, popularity: np.ndarray, snapshot: Snapshot):
        """catalog (I,) bool: may be recommended; popularity (I,): events in the fit window."""
        self._catalog, self._cold, self._tags = catalog, np.asarray(popularity) == 0, snapshot.tag_matrix
        self._surprise = list_metrics.self_information(popularity)
        self._creator = np.asarray(snapshot.creator)
        self._size = list_metrics.creator_sizes(self._creator, np.asarray(popularity))
        self._kinds: dict[str, tuple[str, int]] = {}
        self._items: dict[str, list[np.ndarray]] = {}
        self._scores: dict[str, dict[str, list[np.ndarray]]] = {}
        self._page: dict[str, np.ndarray] = {}
        self._sources: dict[str, np.ndarray] = {}  # name → returned, hits, unique hits
        self._seconds: dict[str, float] = {}
        self._degraded: Counter[str] = Counter()
        self._union_hits = self._relevant = self._cold_relevant = 0

    def start_chunk(self, wanted: Relevant, asked: Requests) -> None:
        """A chunk of requests, and what is relevant to them."""
        self._mix = self._mix_of(asked.history.item, asked.history.weight)
        cold = self._cold[wanted.item.values]
        self._wanted, self._cold_wanted, self._warm_wanted = wanted, wanted.where(cold), wanted.where(~cold)
        self._page = {}
        self._relevant += len(cold)
        self._cold_relevant += int(cold.sum())

    def add(self, name: str, kind: str, depth: int, answer: Callable[[], np.ndarray]) -> None:
        """Run one contender on the open chunk; it answers items (B, n), n ≤ depth."""
        if name in self._page:
            raise TrainingError(f"two contenders are named {name!r}: give each retriever and extra contender its own")
        self._kinds[name] = kind, depth
        begun = time.perf_counter()
        self._page[name] = answer()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begun

    def add_sources(self, found: Candidates) -> None:
        hit = gains(found.item, self._wanted) > 0  # (B, K)
        returned = np.isfinite(found.source_rank)  # (B, K, S)
        alone = returned & (returned.sum(axis=2, keepdims=True) == 1)
        self._union_hits += int(hit.sum())
        for s, name in enumerate(found.sources):
            here = returned[:, :, s]
            row = np.array([here.sum(), (hit & here).sum(), (hit & alone[:, :, s]).sum()])
            self._sources[name] = self._sources.get(name, 0) + row

    def add_degraded(self, stages: tuple[str, ...], requests: int) -> None:
        self._degraded.update(dict.fromkeys(stages, requests))

    def finish_chunk(self) -> None:
        expected = self._page.get(POPULARITY)
        for name, items in self._page.items():
            top = wide(items, TOP)
            gain = gains(items, self._wanted)
            scores = self._relevance(items, gain, self._kinds[name][1])
            scores[f"diversity@{TOP}"] = list_metrics.intra_list_diversity(top, self._tags)
            scores[f"novelty@{TOP}"] = list_metrics.novelty(top, self._surprise)
            scores[f"calibration_error@{TOP}"] = list_metrics.calibration_error(self._mix, self._mix_of(top))
            scores[f"small_creators@{TOP}"] = list_metrics.small_share(top, self._creator, self._size)
            if expected is not None:
                scores[f"serendipity@{TOP}"] = list_metrics.serendipity(top, wide(gain, TOP, 0), expected[:, :TOP])
            self._items.setdefault(name, []).append(top)
            for metric, values in scores.items():
                self._scores.setdefault(name, {}).setdefault(metric, []).append(values)

    def _mix_of(self, items: np.ndarray, weight: np.ndarray | None = None) -> sparse.csr_matrix:
        return list_metrics.tag_mix(list_metrics.as_weights(items, len(self._cold), weight), self._tags)

    def _whole(self, items: np.ndarray) -> dict[str, float]:
        exposure = list_metrics.exposure_by_size(items, self._creator, self._size)
        return {
            f"coverage@{TOP}": list_metrics.coverage(items, self._catalog),
            f"creator_coverage@{TOP}": list_metrics.creator_coverage(items, self._catalog, self._creator),
            f"gini@{TOP}": list_metrics.gini(items, self._catalog),
            **{f"exposure_{name}_creators@{TOP}": share for name, share in exposure.items()},
        }

    def _relevance(self, items: np.ndarray, gain: np.ndarray, depth: int) -> dict[str, np.ndarray]:
        found = {
            HEADLINE: ndcg(gain, self._wanted, TOP),
            f"mrr@{TOP}": mrr(gain, self._wanted, TOP),
            f"hit_rate@{TOP}": hit_rate(gain, self._wanted, TOP),
        }
        cold = np.where(self._cold[np.maximum(items, 0)], gain, 0)
        parts = {
            "": (gain, self._wanted),
            "cold_item_": (cold, self._cold_wanted),
            "warm_item_": (gain - cold, self._warm_wanted),
        }
        for part, (shown, wanted) in parts.items():
            found |= {f"{part}recall@{k}": recall(shown, wanted, k) for k in sorted({*DEPTHS, depth}) if k <= depth}
        return found

    def finish(self, requests: Requests, segments: dict[str, np.ndarray]) -> Replay:
        contenders = {}
        for name, (kind, depth) in self._kinds.items():
            items = np.concatenate(self._items[name])
            scores = {metric: np.concatenate(parts) for metric, parts in self._scores[name].items()}
            scores[f"drift@{TOP}"] = list_metrics.drift(items, requests.user, requests.time, self._tags)
            scores[f"repeat_rate@{TOP}"] = list_metrics.repeat_rate(items, requests.user, requests.time)
            contenders[name] = ModelScores(kind, depth, scores, items, self._whole(items))
        sources = {
            name: SourceHits(float(r / len(requests)), int(h), int(u), float(u / max(self._union_hits, 1)))
            for name, (r, h, u) in self._sources.items()
        }
        return Replay(
            requests.user, contenders, sources, segments, dict(self._degraded),
            self._relevant, self._cold_relevant, dict(self._seconds),
        )  # fmt: skip


def wide(items: np.ndarray, n: int, fill: int = -1) -> np.ndarray:
    """(B, n): cut, or padded with fill."""
    short = max(0, n - items.shape[1])
    return np.pad(items[:, :n], ((0, 0), (0, short)), constant_values=fill)
