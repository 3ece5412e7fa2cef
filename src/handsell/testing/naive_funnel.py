"""Reference for a served slate: the funnel as plain loops over the numbers that a bundle saves.

Independent of the product's code: history and features (naive_past.py), retrievers (naive_sources.py), fusion,
`Booster.predict` on a DMatrix, calibration, eligibility, diversity and spacing. Read from the bundle: fitted numbers
(item vectors, neighbors, popularity, tower weights, trees, knots) and the names of the ranker's columns.

Plug-ins are added as plain functions:

    NaiveFunnel(catalog, bundle, sources=SOURCES | {"latest": score_latest}, features=(compute_my_features,))
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from handsell.ranking.xgboost_import import xgboost
from handsell.testing.naive_past import DAY_US, NaiveCatalog, NaiveUser, cosine
from handsell.testing.naive_sources import SOURCES, Source

TIE = 3e-6  # difference of two values, rounded to six digits, that the rounding of their terms can turn around


@dataclass(frozen=True)
class NaiveRequest:
    user: NaiveUser
    surface: str = "home"
    exclude: frozenset[int] = frozenset()


Features = Callable[[NaiveRequest, int], dict[str, float]]  # values by column name for one item


@dataclass(frozen=True)
class NaiveFunnel:
    """The reference for one trained bundle."""

    catalog: NaiveCatalog
    bundle: Path
    sources: Mapping[str, Source] = field(default_factory=lambda: SOURCES)  # in the order of the ranker's columns
    features: tuple[Features, ...] = ()  # of plug-ins

    def recommend(self, request: NaiveRequest, n: int, preferred: Sequence[int] = ()) -> list[tuple[int, float]]:
        """Return at most n items and their scores; `preferred` items win their position where it is a tie."""
        ranked = self.rank(request, self.find_candidates(request), max(n, self.catalog.config.ranking.ranked))
        return self.rerank(request, ranked, n, preferred)

    def is_eligible(self, request: NaiveRequest, item: int) -> bool:
        user, surface = request.user, self.catalog.config.surfaces[request.surface]
        if item in request.exclude or self.catalog.published[item] > user.time:
            return False
        if item not in user.seen or surface.repeat == "allow":
            return True
        return surface.repeat == "after_days" and user.time - user.seen[item] >= surface.after_days * DAY_US

    def find_candidates(self, request: NaiveRequest) -> list[tuple[int, float, dict]]:
        """Return (item, fused score, {source: (rank, score)}), best first."""
        config = self.catalog.config.retrieval
        found: dict[int, dict] = {}
        for source, score_items in self.sources.items():
            scores = score_items(request.user, self.bundle / "retrievers" / source)
            best = sorted((-s, i) for i, s in scores.items() if self.is_eligible(request, i))
            for rank, (negative, item) in enumerate(best[: config[source].k]):
                found.setdefault(item, {})[source] = (rank, -negative)
        fused = {
            item: sum(config[source].weight / (61 + rank) for source, (rank, _) in by.items())
            for item, by in found.items()
        }
        order = sorted(found, key=lambda item: (-fused[item], item))[: config.candidates]
        return [(item, fused[item], found[item]) for item in order]

    def build_matrix(self, request: NaiveRequest, found: list[tuple[int, float, dict]]) -> np.ndarray:
        """Return the ranker's features (K, F) float32 of the candidates."""
        names = json.loads((self.bundle / "ranker" / "features.json").read_text())
        shared = request.user.compute_user_features() | request.user.compute_context(request.surface)
        by_source = self._compute_source_features(found)
        rows = []
        for (item, _, _), own in zip(found, by_source, strict=True):
            values = shared | own | request.user.compute_item_features(item) | request.user.compute_crosses(item)
            for compute in self.features:
                values |= compute(request, item)
            if set(values) != set(names):
                raise ValueError(f"expected the features of the bundle's ranker, differ in {set(values) ^ set(names)}")
            rows.append([values[name] for name in names])
        return np.array(rows, np.float32)

    def _compute_source_features(self, found: list[tuple[int, float, dict]]) -> list[dict[str, float]]:
        """Return the rank and standardized score of each candidate in each source."""
        rows: list[dict[str, float]] = [{"src_count": len(by), "src_fused": fused} for _, fused, by in found]
        for source in self.sources:
            scores = [np.float32(by[source][1]) for _, _, by in found if source in by]
            mean, spread = (np.mean(scores, dtype=float), np.std(scores, dtype=float)) if scores else (0, 0)
            for row, (_, _, by) in zip(rows, found, strict=True):
                rank, score = by.get(source, (math.nan, math.nan))
                row[f"src_{source}_rank"] = rank
                row[f"src_{source}_z"] = float((np.float32(score) - mean) / (spread or 1))
        return rows

    def rank(self, request: NaiveRequest, found: list[tuple[int, float, dict]], k: int) -> list[tuple[int, float]]:
        """Return the k best (item, calibrated score); a user without events may get the fused order."""
        if not request.user.history and not json.loads((self.bundle / "ranker" / "without_events.json").read_text()):
            return [(item, fused) for item, fused, _ in found[:k]]
        booster = xgboost.Booster(model_file=self.bundle / "ranker" / "ranker.ubj")
        data = xgboost.DMatrix(self.build_matrix(request, found), feature_names=booster.feature_names, nthread=1)
        prior = json.loads((self.bundle / "ranker" / "prior.json").read_text())
        fused = np.array([fused for _, fused, _ in found], np.float32)
        margin = booster.predict(data, output_margin=True) + np.float32(prior) * fused
        knots = json.loads((self.bundle / "ranker" / "calibration.json").read_text())
        best = sorted(range(len(found)), key=lambda c: -margin[c])[:k]  # stable
        return [(found[c][0], float(np.float32(interpolate(knots["raw"], knots["score"], margin[c])))) for c in best]

    def rerank(
        self, request: NaiveRequest, ranked: list[tuple[int, float]], n: int, preferred: Sequence[int] = ()
    ) -> list[tuple[int, float]]:
        """Choose one item after the other; items of one creator are kept apart while others are left."""
        settings = SimpleNamespace(**json.loads((self.bundle / "config.json").read_text())["reranking"])
        for key in ("diversity", "calibration", "novelty") if settings.strength != "auto" else ():
            setattr(settings, key, settings.strength * getattr(settings, key))
        creator = self.catalog.creator
        left = [(item, score) for item, score in ranked if self.is_eligible(request, item)]
        scores = [score for _, score in left]
        span = (max(scores) - min(scores)) or 1
        likes = {item: request.user.compute_item_features(item)["item_positives_total"] for item, _ in left}
        popularity = {item: math.log2(count + 1) for item, count in likes.items()}
        popularity_span = (max(popularity.values()) - min(popularity.values())) or 1
        target = self._compute_tag_shares([(e.item, e.weight) for e in request.user.history if e.weight > 0])
        slate: list[tuple[int, float]] = []
        while left and len(slate) < n:
            chosen = [item for item, _ in slate]

            def value(candidate: tuple[int, float], chosen=chosen) -> tuple[bool, float]:
                item, score = candidate
                near = chosen[-settings.same_creator_gap :] if settings.same_creator_gap else []
                repeats_creator = any(creator[item] == creator[other] for other in near)
                gain = (1 - settings.diversity) * (score - min(scores)) / span
                gain += settings.novelty * (max(popularity.values()) - popularity[item]) / popularity_span
                gain -= settings.diversity * self._measure_redundancy(item, chosen)
                mix = self._compute_tag_shares([(i, 1.0) for i in [*chosen, item]])
                divergence = sum(p * math.log(p / (0.99 * mix.get(tag, 0.0) + 0.01 * p)) for tag, p in target.items())
                gain = (1 - settings.calibration) * gain - settings.calibration * divergence
                return not repeats_creator, round(gain, 6)

            apart = [one for one in left if value(one)[0]] or left
            most = max(score for _, score in apart)
            usable = [one for one in apart if most <= 0 or one[1] >= settings.floor * most]
            taken = max(usable, key=value)  # the first of equals
            best = value(taken)
            for candidate in usable if len(slate) < len(preferred) else ():
                if candidate[0] == preferred[len(slate)] and value(candidate) >= (best[0], best[1] - TIE):
                    taken = candidate
            left.remove(taken)
            slate.append(taken)
        return slate

    def _measure_redundancy(self, item: int, chosen: list[int]) -> float:
        """Return the largest similarity to a chosen item (MMR), or the loss of log volume (DPP)."""
        if self.catalog.config.reranking.selection == "mmr":
            return max((self._compute_similarity(item, other) for other in chosen), default=0.0)
        before, after = (np.linalg.slogdet(self._build_kernel(some))[1] for some in (chosen, [*chosen, item]))
        return before - after

    def _build_kernel(self, items: list[int]) -> np.ndarray:
        def entry(a: int, b: int) -> float:
            same = self.catalog.creator[a] == self.catalog.creator[b]
            tags = round(cosine(self.catalog.tags[a], self.catalog.tags[b]), 5)
            return 1.0 if a == b else 0.95 * (0.75 * tags + 0.25 * same)

        return np.array([[entry(a, b) for b in items] for a in items]).reshape(len(items), len(items))

    def _compute_tag_shares(self, weighted: list[tuple[int, float]]) -> dict[str, float]:
        """Return the shares of tags; the weight of an item is divided evenly among its tags."""
        mix: dict[str, float] = {}
        for item, weight in weighted:
            for tag in self.catalog.tags[item]:
                mix[tag] = mix.get(tag, 0.0) + weight / len(self.catalog.tags[item])
        total = sum(mix.values())
        return {tag: value / total for tag, value in mix.items()}

    def _compute_similarity(self, a: int, b: int) -> float:
        same = self.catalog.creator[a] == self.catalog.creator[b]
        return 1.0 if same else round(cosine(self.catalog.tags[a], self.catalog.tags[b]), 5)


def interpolate(x: list[float], y: list[float], at: float) -> float:
    """Interpolate linearly between knots; constant beyond them."""
    if at <= x[0]:
        return y[0]
    for left, right, low, high in zip(x, x[1:], y, y[1:], strict=False):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return y[-1]
