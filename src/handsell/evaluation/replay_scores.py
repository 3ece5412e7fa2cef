"""Scores of a replay: lists are scored chunk by chunk and kept as per-request arrays, by model."""

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
from handsell.evaluation.metrics import Relevant, gains, hit_rate, mean_known, mrr, ndcg, recall

TOP = 10  # length of the lists that all metrics but deep recall score
DEPTHS = (10, 50, 1000)  # of recall
HEADLINE = f"ndcg@{TOP}"  # the metric that models are compared by
POPULARITY = "popularity"  # the retriever whose list serendipity takes as expected


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The scores of one model on R requests."""

    kind: str  # retriever, blend, ranker, funnel, oracle, curve or other
    depth: int  # length of its lists
    scores: dict[str, np.ndarray]  # metric → (R,) float, NaN where undefined
    items: np.ndarray  # (R, TOP) int32
    overall: dict[str, float]  # metric of all lists together → value: coverage, exposure

    @property
    def coverage(self) -> float:
        return self.overall[f"coverage@{TOP}"]

    def means(self) -> dict[str, float]:
        """Return every metric: the mean of per-request values, or the value of all lists together."""
        return {**{metric: mean_known(values) for metric, values in self.scores.items()}, **self.overall}


@dataclass(frozen=True, slots=True)
class SourceHits:
    """How much one source contributed to the candidates."""

    returned: float  # candidates per request
    hits: int  # relevant items that it returned
    unique_hits: int  # relevant items that no other source returned
    unique_share: float  # of the relevant items of all sources


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay of R requests."""

    user: np.ndarray  # (R,) int32
    models: dict[str, ModelScores]
    sources: dict[str, SourceHits]
    segments: dict[str, np.ndarray]  # segment of users → (R,) bool
    degraded: dict[str, int] = field(default_factory=dict)  # stage → requests in the chunks in which it failed
    relevant: int = 0  # relevant items over all requests
    cold_relevant: int = 0  # relevant items without an event in the fit window
    seconds: dict[str, float] = field(default_factory=dict)  # model → time taken
    curve: dict[str, ModelScores] = field(default_factory=dict)  # other ways to re-rank the ranker's candidates

    def __len__(self) -> int:
        return len(self.user)

    def of_kind(self, kind: str) -> list[str]:
        """Return the names of the models of a kind."""
        return [name for name, model in self.models.items() if model.kind == kind]

    def scores(self, metric: str) -> dict[str, np.ndarray]:
        """Return model → (R,) values of a metric, for the models that have it."""
        return {name: model.scores[metric] for name, model in self.models.items() if metric in model.scores}


class ReplayScorer:
    """Scores the lists of models: `start_chunk`, `add` each model, `finish_chunk` for each chunk; then `finish`."""

    def __init__(self, catalog: np.ndarray, popularity: np.ndarray, snapshot: Snapshot):
        """catalog (I,) bool: items that may be recommended; popularity (I,): events in the fit window."""
        self._catalog, self._cold, self._tags = catalog, np.asarray(popularity) == 0, snapshot.tag_matrix
        self._information = list_metrics.self_information(popularity)
        self._creator = np.asarray(snapshot.creator)
        self._size = list_metrics.creator_sizes(self._creator, np.asarray(popularity))
        self._kinds: dict[str, tuple[str, int]] = {}
        self._items: dict[str, list[np.ndarray]] = {}
        self._scores: dict[str, dict[str, list[np.ndarray]]] = {}
        self._chunk: dict[str, np.ndarray] = {}  # model → items (B, n) of the current chunk
        self._sources: dict[str, np.ndarray] = {}  # source → candidates, hits, unique hits
        self._seconds: dict[str, float] = {}
        self._degraded: Counter[str] = Counter()
        self._all_hits = self._n_relevant = self._n_cold_relevant = 0

    def start_chunk(self, relevant: Relevant, requests: Requests) -> None:
        """Begin a chunk of requests; `relevant` has their relevant items."""
        self._history_tags = self._tag_shares(requests.history.item, requests.history.weight)
        cold = self._cold[relevant.item.values]
        self._relevant, self._cold_relevant, self._warm_relevant = relevant, relevant.where(cold), relevant.where(~cold)
        self._chunk = {}
        self._n_relevant += len(cold)
        self._n_cold_relevant += int(cold.sum())

    def add(self, name: str, kind: str, depth: int, recommend: Callable[[], np.ndarray]) -> None:
        """Run one model on the chunk; `recommend` returns items (B, n), n ≤ depth.

        Raises TrainingError if the chunk already has a model of this name.
        """
        if name in self._chunk:
            raise TrainingError(f"two models are named {name!r}: give each retriever and each other model its own name")
        self._kinds[name] = kind, depth
        started = time.perf_counter()
        self._chunk[name] = recommend()
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - started

    def add_sources(self, candidates: Candidates) -> None:
        """Count what each source contributed to the candidates of the chunk."""
        hit = gains(candidates.item, self._relevant) > 0  # (B, K)
        returned = np.isfinite(candidates.source_rank)  # (B, K, S)
        alone = returned & (returned.sum(axis=2, keepdims=True) == 1)
        self._all_hits += int(hit.sum())
        for s, name in enumerate(candidates.sources):
            own = returned[:, :, s]
            row = np.array([own.sum(), (hit & own).sum(), (hit & alone[:, :, s]).sum()])
            self._sources[name] = self._sources.get(name, 0) + row

    def add_degraded(self, stages: tuple[str, ...], requests: int) -> None:
        """Count the requests during which stages failed."""
        self._degraded.update(dict.fromkeys(stages, requests))

    def finish_chunk(self) -> None:
        """Score the lists of all models of the chunk."""
        expected = self._chunk.get(POPULARITY)
        for name, items in self._chunk.items():
            top = cut_or_pad(items, TOP)
            gain = gains(items, self._relevant)
            scores = self._score_relevance(items, gain, self._kinds[name][1])
            scores[f"diversity@{TOP}"] = list_metrics.intra_list_diversity(top, self._tags)
            scores[f"novelty@{TOP}"] = list_metrics.novelty(top, self._information)
            shown_tags = self._tag_shares(top)
            scores[f"calibration_error@{TOP}"] = list_metrics.calibration_error(self._history_tags, shown_tags)
            scores[f"small_creators@{TOP}"] = list_metrics.small_share(top, self._creator, self._size)
            if expected is not None:
                top_gain = cut_or_pad(gain, TOP, 0)
                scores[f"serendipity@{TOP}"] = list_metrics.serendipity(top, top_gain, expected[:, :TOP])
            self._items.setdefault(name, []).append(top)
            for metric, values in scores.items():
                self._scores.setdefault(name, {}).setdefault(metric, []).append(values)

    def finish(self, requests: Requests, segments: dict[str, np.ndarray]) -> Replay:
        """Return the scores of all chunks; `requests` are those of all chunks, in the same order."""
        models = {}
        for name, (kind, depth) in self._kinds.items():
            items = np.concatenate(self._items[name])
            scores = {metric: np.concatenate(parts) for metric, parts in self._scores[name].items()}
            scores[f"drift@{TOP}"] = list_metrics.drift(items, requests.user, requests.time, self._tags)
            scores[f"repeat_rate@{TOP}"] = list_metrics.repeat_rate(items, requests.user, requests.time)
            models[name] = ModelScores(kind, depth, scores, items, self._score_exposure(items))
        sources = {
            name: SourceHits(float(r / len(requests)), int(h), int(u), float(u / max(self._all_hits, 1)))
            for name, (r, h, u) in self._sources.items()
        }
        return Replay(
            requests.user, models, sources, segments, dict(self._degraded),
            self._n_relevant, self._n_cold_relevant, dict(self._seconds),
        )  # fmt: skip

    def _tag_shares(self, items: np.ndarray, weight: np.ndarray | None = None) -> sparse.csr_matrix:
        return list_metrics.tag_shares(list_metrics.item_weights(items, len(self._cold), weight), self._tags)

    def _score_exposure(self, items: np.ndarray) -> dict[str, float]:
        exposure = list_metrics.exposure_by_size(items, self._creator, self._size)
        return {
            f"coverage@{TOP}": list_metrics.coverage(items, self._catalog),
            f"creator_coverage@{TOP}": list_metrics.creator_coverage(items, self._catalog, self._creator),
            f"gini@{TOP}": list_metrics.gini(items, self._catalog),
            **{f"exposure_{name}_creators@{TOP}": share for name, share in exposure.items()},
        }

    def _score_relevance(self, items: np.ndarray, gain: np.ndarray, depth: int) -> dict[str, np.ndarray]:
        scores = {
            HEADLINE: ndcg(gain, self._relevant, TOP),
            f"mrr@{TOP}": mrr(gain, self._relevant, TOP),
            f"hit_rate@{TOP}": hit_rate(gain, self._relevant, TOP),
        }
        cold_gain = np.where(self._cold[np.maximum(items, 0)], gain, 0)
        parts = {
            "": (gain, self._relevant),
            "cold_item_": (cold_gain, self._cold_relevant),
            "warm_item_": (gain - cold_gain, self._warm_relevant),
        }
        for part, (of_part, relevant) in parts.items():
            scores |= {
                f"{part}recall@{k}": recall(of_part, relevant, k) for k in sorted({*DEPTHS, depth}) if k <= depth
            }
        return scores


def cut_or_pad(array: np.ndarray, n: int, fill: int = -1) -> np.ndarray:
    """Return (B, n): the first n columns, or all of them and columns of `fill`."""
    return np.pad(array[:, :n], ((0, 0), (0, max(0, n - array.shape[1]))), constant_values=fill)
