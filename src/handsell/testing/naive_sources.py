"""Reference scores of the retrievers that the world's config enables, as plain loops.

Each function takes a user and the folder that the retriever saved, and returns the score by item number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from handsell.testing.naive_past import DAY_US, NaiveUser, weigh_history

Source = Callable[[NaiveUser, Path], dict[int, float]]


def score_popularity(user: NaiveUser, folder: Path) -> dict[int, float]:
    scores = np.load(folder / "popularity.npy")
    if (folder / "lift.npy").exists():
        hour, weekend = user.time // (DAY_US // 24) % 24, (user.time // DAY_US + 3) % 7 >= 5
        scores = scores * np.load(folder / "lift.npy")[hour // 4 + (6 if weekend else 0)]
    return {i: s for i, s in enumerate(scores.tolist()) if s > 0}


def score_history(user: NaiveUser, folder: Path) -> dict[int, float]:
    config = user.catalog.config.retrieval["history"]
    repeats, popularity = np.load(folder / "items.npy").astype(float)
    return {
        item: float(weight) * repeats[item] ** config.repeat_exponent * popularity[item] ** config.popularity_exponent
        for item, weight in weigh_history(user, config.half_life_days).items()
        if weight > 0
    }


def score_item_knn(user: NaiveUser, folder: Path) -> dict[int, float]:
    data, indices, indptr = (np.load(folder / f"{name}.npy") for name in ("data", "indices", "indptr"))
    scores = dict.fromkeys(range(len(user.catalog.item_ids)), np.float32(0))
    weights = weigh_history(user, user.catalog.config.retrieval["item_knn"].half_life_days)
    for item, weight in weights.items():
        for at in range(indptr[item], indptr[item + 1]):
            scores[indices[at]] += weight * data[at]
    for item, weight in weights.items():
        scores[item] += min(weight, np.float32(0))
    return {item: float(score) for item, score in scores.items() if score > 0}


def score_als(user: NaiveUser, folder: Path) -> dict[int, float]:
    config, vectors = user.catalog.config.retrieval["als"], np.load(folder / "index/vectors.npy").astype(float)
    right = np.zeros(config.embedding_size)
    weights = {item: weight for item, weight in weigh_history(user, config.half_life_days).items() if weight}
    penalty = json.loads((folder / "encoder" / "encoder.json").read_text())["penalty"]
    evidence = (len(weights) + penalty["unseen"]) / penalty["typical"]
    left = vectors.T @ vectors + penalty["size"] * evidence ** penalty["exponent"] * np.eye(config.embedding_size)
    for item, weight in weights.items():
        extra = config.alpha * math.log1p(abs(weight))
        left += extra * np.outer(vectors[item], vectors[item])
        right += (1 + extra) * (weight > 0) * vectors[item]
    return multiply(vectors, np.linalg.inv(left) @ right) if any(w > 0 for w in weights.values()) else {}


def score_two_tower(user: NaiveUser, folder: Path) -> dict[int, float]:
    inputs = np.load(folder / "encoder/inputs.npy").astype(float)
    layers = load_file(folder / "encoder" / "towers.safetensors")
    rated = [e for e in user.history[-50:] if e.weight]
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
    day = user.time / DAY_US
    context = [
        math.sin(2 * math.pi * (day % 1)),
        math.cos(2 * math.pi * (day % 1)),
        (int(day) + 3) % 7 >= 5,
        math.log1p(len(rated)) / math.log1p(50),
    ]
    x = np.concatenate([*pools, context])
    hidden = np.maximum(layers["user.0.weight"].astype(float) @ x + layers["user.0.bias"], 0)
    out = pools[0] + pools[1] + layers["user.2.weight"].astype(float) @ hidden + layers["user.2.bias"]
    return multiply(np.load(folder / "index/vectors.npy"), out / np.linalg.norm(out))


def score_content(user: NaiveUser, folder: Path) -> dict[int, float]:
    vectors = np.load(folder / "index/vectors.npy").astype(float)
    weights = weigh_history(user, user.catalog.config.retrieval["content"].half_life_days)
    mean = sum(weight * vectors[item] for item, weight in weights.items())
    return multiply(vectors, mean / np.linalg.norm(mean)) if any(w > 0 for w in weights.values()) else {}


def multiply(vectors: np.ndarray, query: np.ndarray) -> dict[int, float]:
    """Return inner products with the items that the model knows, as float32, by item."""
    rows: Iterable[tuple[int, np.ndarray]] = enumerate(vectors)
    return {item: float(np.float32(vector @ query)) for item, vector in rows if vector.any()}


SOURCES: dict[str, Source] = {  # in the order of the ranker's columns
    "popularity": score_popularity,
    "history": score_history,
    "item_knn": score_item_knn,
    "als": score_als,
    "two_tower": score_two_tower,
    "content": score_content,
}
