"""The oracle of a served slate: the funnel again, as plain loops over the numbers that a bundle saves.

Independent of handsell: the past and every feature (naive_past.py, from the log), encoders (least squares and
towers written out), inner products and a sort instead of the index, the union, `Booster.predict` on a DMatrix,
calibration, eligibility, diversity and spacing. Taken from the bundle: fitted numbers (item vectors, neighbors,
popularity, tower weights, trees, knots) and the names of the ranker's columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import xgboost
from safetensors.numpy import load_file

from naive_past import DAY_US, Past, Shelf, cosine, votes

SOURCES = ("popularity", "history", "item_knn", "als", "two_tower", "content")


@dataclass(frozen=True)
class Asked:
    past: Past
    surface: str = "home"
    exclude: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Oracle:
    shelf: Shelf
    bundle: Path

    def slate(self, asked: Asked, n: int) -> list[tuple[int, float]]:
        """The n items and their scores."""
        ranked = self.ranked(asked, self.candidates(asked), max(n, self.shelf.config.ranking.ranked))
        return self.varied(asked, ranked, n)

    # -- eligibility ----------------------------------------------------------------------------------

    def eligible(self, asked: Asked, item: int) -> bool:
        past, surface = asked.past, self.shelf.config.surfaces[asked.surface]
        if item in asked.exclude or self.shelf.published[item] > past.time:
            return False
        if item not in past.seen or surface.repeat == "allow":
            return True
        return surface.repeat == "after_days" and past.time - past.seen[item] >= surface.after_days * DAY_US

    # -- candidates: (item, fused, {source: (rank, score)}) ---------------------------------------------

    def candidates(self, asked: Asked) -> list[tuple[int, float, dict]]:
        config = self.shelf.config.retrieval
        found: dict[int, dict] = {}
        for source in SOURCES:
            scores = getattr(self, f"_{source}")(asked.past)
            best = sorted((-s, i) for i, s in scores.items() if self.eligible(asked, i))
            for rank, (negative, item) in enumerate(best[: config[source].k]):
                found.setdefault(item, {})[source] = (rank, -negative)
        fused = {
            item: sum(config[source].weight / (61 + rank) for source, (rank, _) in by.items())
            for item, by in found.items()
        }
        order = sorted(found, key=lambda item: (-fused[item], item))[: config.candidates]
        return [(item, fused[item], found[item]) for item in order]

    def _load(self, source: str, name: str) -> np.ndarray:
        return np.load(self.bundle / "retrievers" / source / name)

    def _popularity(self, past: Past) -> dict[int, float]:
        scores = self._load("popularity", "popularity.npy")
        if (self.bundle / "retrievers" / "popularity" / "lift.npy").exists():
            hour, weekend = past.time // (DAY_US // 24) % 24, (past.time // DAY_US + 3) % 7 >= 5
            scores = scores * self._load("popularity", "lift.npy")[hour // 4 + (6 if weekend else 0)]
        return {i: s for i, s in enumerate(scores.tolist()) if s > 0}

    def _history(self, past: Past) -> dict[int, float]:
        config = self.shelf.config.retrieval["history"]
        repeats, popularity = self._load("history", "items.npy").astype(float)
        given = votes(past, config.half_life_days)
        return {
            item: float(weight)
            * repeats[item] ** config.repeat_exponent
            * popularity[item] ** config.popularity_exponent
            for item, weight in given.items()
            if weight > 0
        }

    def _item_knn(self, past: Past) -> dict[int, float]:
        data, indices, indptr = (self._load("item_knn", f"{name}.npy") for name in ("data", "indices", "indptr"))
        scores = dict.fromkeys(range(len(self.shelf.item_ids)), np.float32(0))
        given = votes(past, self.shelf.config.retrieval["item_knn"].half_life_days)
        for item, weight in given.items():
            for at in range(indptr[item], indptr[item + 1]):
                scores[indices[at]] += weight * data[at]
        for item, weight in given.items():
            scores[item] += min(weight, np.float32(0))
        return {item: float(score) for item, score in scores.items() if score > 0}

    def _als(self, past: Past) -> dict[int, float]:
        config, vectors = self.shelf.config.retrieval["als"], self._load("als", "index/vectors.npy").astype(float)
        right = np.zeros(config.embedding_size)
        given = {item: weight for item, weight in votes(past, config.half_life_days).items() if weight}
        told = json.loads((self.bundle / "retrievers" / "als" / "encoder" / "encoder.json").read_text())["penalty"]
        evidence = (len(given) + told["unseen"]) / told["typical"]
        left = vectors.T @ vectors + told["size"] * evidence ** told["exponent"] * np.eye(config.embedding_size)
        for item, weight in given.items():
            extra = config.alpha * math.log1p(abs(weight))
            left += extra * np.outer(vectors[item], vectors[item])
            right += (1 + extra) * (weight > 0) * vectors[item]
        return products(vectors, np.linalg.inv(left) @ right) if any(w > 0 for w in given.values()) else {}

    def _two_tower(self, past: Past) -> dict[int, float]:
        inputs = self._load("two_tower", "encoder/inputs.npy").astype(float)
        layers = load_file(self.bundle / "retrievers" / "two_tower" / "encoder" / "towers.safetensors")
        rated = [e for e in past.history[-50:] if e.weight]
        if not any(e.weight > 0 for e in rated):
            return {}
        lasting, recent, bad = [], [], []
        for place, e in enumerate(rated):
            later = sum(x.weight > 0 for x in rated[place + 1 :])
            age_days = (rated[-1].time - e.time) / DAY_US
            lasting.append(max(e.weight, 0) * 2 ** (-age_days / 28))
            recent.append(max(e.weight, 0) * 2 ** (-later / 3))
            bad.append(max(-e.weight, 0))
        pools = [sum(w * inputs[e.item] for w, e in zip(ws, rated, strict=True)) / (sum(ws) or 1)
                 for ws in (lasting, recent, bad)]  # fmt: skip
        day = past.time / DAY_US
        context = [
            math.sin(2 * math.pi * (day % 1)),
            math.cos(2 * math.pi * (day % 1)),
            (int(day) + 3) % 7 >= 5,
            math.log1p(len(rated)) / math.log1p(50),
        ]
        x = np.concatenate([*pools, context])
        hidden = np.maximum(layers["user.0.weight"].astype(float) @ x + layers["user.0.bias"], 0)
        out = pools[0] + pools[1] + layers["user.2.weight"].astype(float) @ hidden + layers["user.2.bias"]
        return products(self._load("two_tower", "index/vectors.npy"), out / np.linalg.norm(out))

    def _content(self, past: Past) -> dict[int, float]:
        vectors = self._load("content", "index/vectors.npy").astype(float)
        given = votes(past, self.shelf.config.retrieval["content"].half_life_days)
        mean = sum(weight * vectors[item] for item, weight in given.items())
        return products(vectors, mean / np.linalg.norm(mean)) if any(w > 0 for w in given.values()) else {}

    # -- ranking: [(item, score)] -----------------------------------------------------------------------

    def matrix(self, asked: Asked, found: list[tuple[int, float, dict]]) -> np.ndarray:
        names = json.loads((self.bundle / "ranker" / "features.json").read_text())
        shared = asked.past.user_features() | asked.past.context(asked.surface)
        standing = self._standing(found)
        rows = []
        for (item, _, _), own in zip(found, standing, strict=True):
            values = shared | own | asked.past.item_features(item) | asked.past.crosses(item)
            assert set(values) == set(names)
            rows.append([values[name] for name in names])
        return np.array(rows, np.float32)

    def _standing(self, found: list[tuple[int, float, dict]]) -> list[dict[str, float]]:
        """What the sources say of each candidate."""
        rows = [{"src_count": len(by), "src_fused": fused} for _, fused, by in found]
        for source in SOURCES:
            scores = [np.float32(by[source][1]) for _, _, by in found if source in by]
            mean, spread = (np.mean(scores, dtype=float), np.std(scores, dtype=float)) if scores else (0, 0)
            for row, (_, _, by) in zip(rows, found, strict=True):
                rank, score = by.get(source, (math.nan, math.nan))
                row[f"src_{source}_rank"] = rank
                row[f"src_{source}_z"] = (np.float32(score) - mean) / (spread or 1)
        return rows

    def ranked(self, asked: Asked, found: list[tuple[int, float, dict]], k: int) -> list[tuple[int, float]]:
        booster = xgboost.Booster(model_file=self.bundle / "ranker" / "ranker.ubj")
        data = xgboost.DMatrix(self.matrix(asked, found), feature_names=booster.feature_names, nthread=1)
        prior = json.loads((self.bundle / "ranker" / "prior.json").read_text())
        fused = np.array([fused for _, fused, _ in found], np.float32)
        margin = booster.predict(data, output_margin=True) + np.float32(prior) * fused
        knots = json.loads((self.bundle / "ranker" / "calibration.json").read_text())
        best = sorted(range(len(found)), key=lambda c: -margin[c])[:k]  # stable
        return [(found[c][0], float(np.float32(line(knots["raw"], knots["score"], margin[c])))) for c in best]

    # -- re-ranking -------------------------------------------------------------------------------------

    def varied(self, asked: Asked, ranked: list[tuple[int, float]], n: int) -> list[tuple[int, float]]:
        """Greedy: what a candidate is worth beside the chosen; no two of one creator in a row while others are left."""
        dials, shelf = SimpleNamespace(**json.loads((self.bundle / "config.json").read_text())["reranking"]), self.shelf
        for dial in ("diversity", "calibration", "novelty") if dials.strength != "auto" else ():
            setattr(dials, dial, dials.strength * getattr(dials, dial))
        left = [(item, score) for item, score in ranked if self.eligible(asked, item)]
        scores = [score for _, score in left]
        span = (max(scores) - min(scores)) or 1
        fame = {item: math.log2(asked.past.item_features(item)["item_positives_total"] + 1) for item, _ in left}
        widest = (max(fame.values()) - min(fame.values())) or 1
        wanted = self._mix([(e.item, e.weight) for e in asked.past.history if e.weight > 0])
        slate: list[tuple[int, float]] = []
        while left and len(slate) < n:
            chosen = [item for item, _ in slate]

            def value(one: tuple[int, float], chosen=chosen) -> tuple[bool, float]:
                item, score = one
                near = chosen[-dials.same_creator_gap :] if dials.same_creator_gap else []
                crowded = any(shelf.creator[item] == shelf.creator[other] for other in near)
                worth = (1 - dials.diversity) * (score - min(scores)) / span
                worth += dials.novelty * (max(fame.values()) - fame[item]) / widest
                worth -= dials.diversity * self._redundant(item, chosen)
                mix = self._mix([(i, 1.0) for i in [*chosen, item]])
                far = sum(p * math.log(p / (0.99 * mix.get(tag, 0.0) + 0.01 * p)) for tag, p in wanted.items())
                return not crowded, round((1 - dials.calibration) * worth - dials.calibration * far, 6)

            taken = max(left, key=value)  # the first of equals
            left.remove(taken)
            slate.append(taken)
        return slate

    def _redundant(self, item: int, chosen: list[int]) -> float:
        """What diversity charges: the largest likeness, or minus the log of what the chosen do not explain."""
        if self.shelf.config.reranking.selection == "mmr":
            return max((self._alike(item, other) for other in chosen), default=0.0)
        before, after = (np.linalg.slogdet(self._kernel(some))[1] for some in (chosen, [*chosen, item]))
        return before - after

    def _kernel(self, items: list[int]) -> np.ndarray:
        def entry(a: int, b: int) -> float:
            same = self.shelf.creator[a] == self.shelf.creator[b]
            tags = round(cosine(self.shelf.tags[a], self.shelf.tags[b]), 5)
            return 1.0 if a == b else 0.95 * (0.75 * tags + 0.25 * same)

        return np.array([[entry(a, b) for b in items] for a in items]).reshape(len(items), len(items))

    def _mix(self, weighted: list[tuple[int, float]]) -> dict[str, float]:
        """Shares of tags, each item spread evenly over its own."""
        mix: dict[str, float] = {}
        for item, weight in weighted:
            for tag in self.shelf.tags[item]:
                mix[tag] = mix.get(tag, 0.0) + weight / len(self.shelf.tags[item])
        total = sum(mix.values())
        return {tag: value / total for tag, value in mix.items()}

    def _alike(self, a: int, b: int) -> float:
        same = self.shelf.creator[a] == self.shelf.creator[b]
        return 1.0 if same else round(cosine(self.shelf.tags[a], self.shelf.tags[b]), 5)


def products(vectors: np.ndarray, query: np.ndarray) -> dict[int, float]:
    """Inner products with the items that the model knows, as float32, by item."""
    rows: Iterable[tuple[int, np.ndarray]] = enumerate(vectors)
    return {item: float(np.float32(vector @ query)) for item, vector in rows if vector.any()}


def line(x: list[float], y: list[float], at: float) -> float:
    """Linear between knots, constant beyond."""
    if at <= x[0]:
        return y[0]
    for left, right, low, high in zip(x, x[1:], y, y[1:], strict=False):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return y[-1]
