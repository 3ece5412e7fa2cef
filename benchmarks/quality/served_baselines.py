"""Simple baselines, fitted on the train table of a deployment.

They use user, item, order and type of the events only. Settings are common defaults, the same on every data set; none
was chosen on the test part. Where the home surface does not repeat items, items that the user has seen are excluded;
where it does, two more baselines recommend the user's own items again.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from benchmarks.quality.served_tables import CONFIG, require
from handsell.evaluation.intervals import estimate_means

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

TOP = 10
METRIC = f"ndcg@{TOP}"
HALF_EVENTS = 10  # half-life of a like, in later likes of the user
NEWEST = 0.1  # share of all likes that counts as recent
EASE_REG, EASE_ITEMS = 200.0, 15_000  # ridge penalty (steck2019), most items in the dense matrix
FACTORS, ITERATIONS, SEED = 64, 15, 7
CONFIDENCE, ALS_REG = 10.0, 10.0  # chosen on the development parts of ml-100k, ml-latest-small and beauty
CHUNK = 512  # users scored at once
TIE = 1e-6  # weight of popularity, which breaks ties

Scores = Callable[[np.ndarray], np.ndarray]  # rows (B,) of users → (B, I) float, larger is better


@dataclass(frozen=True)
class TrainLog:
    """Train table as matrices of U users and I items, both sorted by id."""

    users: dict[str, int]
    items: np.ndarray  # (I,) text
    likes: sparse.csr_matrix  # (U, I) 1 for an event of positive weight
    recent: sparse.csr_matrix  # (U, I) 0.5 ** (newer likes of the user / HALF_EVENTS)
    counts: sparse.csr_matrix  # (U, I) number of likes
    last: sparse.csr_matrix  # (U, I) position, from 1, of the item's last like in the user's likes
    seen: sparse.csr_matrix  # (U, I) 1 for an event whose type counts as seen
    newest: np.ndarray  # (I,) likes among the newest tenth of all
    repeats: bool  # seen items may be recommended again

    @property
    def popularity(self) -> np.ndarray:
        """Number of users who like each item (I,)."""
        return np.asarray(self.likes.sum(axis=0), float).ravel()


@dataclass(frozen=True)
class ListMetrics:
    """Metrics of the lists of U users."""

    ndcg: np.ndarray  # (U,)
    recall: np.ndarray  # (U,)
    shown: int  # distinct items in all lists


def read_log(folder: Path) -> TrainLog:
    """Read train.csv, and event types and repeats from served.toml."""
    config = tomllib.loads(require(folder / CONFIG).read_text("utf-8"))
    types = config["events"]["types"]
    with require(folder / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = [(int(row["time"]), row["user_id"], row["item_id"], row["type"]) for row in csv.DictReader(file)]
    rows.sort(key=lambda row: row[0])
    user_ids, user = np.unique([row[1] for row in rows], return_inverse=True)
    item_ids, item = np.unique([row[2] for row in rows], return_inverse=True)
    liked = np.array([types[row[3]]["weight"] > 0 for row in rows])
    seen = np.array([types[row[3]].get("seen", True) for row in rows])
    repeats = config.get("surfaces", {}).get("home", {}).get("repeat", "exclude") == "allow"
    shape = len(user_ids), len(item_ids)
    users = {name: row for row, name in enumerate(user_ids.tolist())}
    newest = np.bincount(item[liked][-max(1, int(NEWEST * liked.sum())) :], minlength=shape[1]).astype(float)
    likes = _build_like_matrices(user[liked], item[liked], shape)
    return TrainLog(
        users, item_ids, **likes, seen=_build_matrix(user[seen], item[seen], shape), newest=newest, repeats=repeats
    )  # fmt: skip


def _build_like_matrices(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> dict[str, Any]:
    """Build likes, recent, counts and last from likes in order of time."""
    order = np.argsort(user, kind="stable")
    user, item = user[order], item[order]
    ends = np.searchsorted(user, user, side="right")
    back = ends - 1 - np.arange(len(user))
    place = np.arange(len(user)) - np.searchsorted(user, user, side="left") + 1
    newest_first = np.lexsort((back, item, user))
    pair = user[newest_first] * shape[1] + item[newest_first]
    first = newest_first[np.unique(pair, return_index=True)[1]]
    u, i = user[first], item[first]
    counts = sparse.csr_matrix((np.ones(len(user)), (user, item)), shape)
    weights = (np.ones(len(u)), 0.5 ** (back[first] / HALF_EVENTS))
    likes, recent = (sparse.csr_matrix((w, (u, i)), shape) for w in weights)
    last = sparse.csr_matrix((place[first].astype(float), (u, i)), shape)
    return {"likes": likes, "recent": recent, "counts": counts, "last": last}


def _build_matrix(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    found = sparse.csr_matrix((np.ones(len(user)), (user, item)), shape)
    found.data[:] = 1
    return found


def score_by_counts(counts: np.ndarray) -> Scores:
    """Score items by counts (I,), the same for all users."""
    return lambda rows: np.tile(counts, (len(rows), 1))


def score_by_cosine(log: TrainLog, taste: sparse.csr_matrix) -> Scores:
    """Score items by the sum of their cosines with the user's items, weighted by `taste` (U, I)."""
    gram = sparse.csr_matrix(log.likes.T @ log.likes)
    norm = sparse.diags(1 / np.sqrt(np.maximum(gram.diagonal(), 1)))
    gram.setdiag(0)
    cosine = sparse.csr_matrix(norm @ gram @ norm)
    return lambda rows: (taste[rows] @ cosine).toarray()


def fit_ease(log: TrainLog) -> tuple[np.ndarray, np.ndarray]:
    """Return the J most popular items and item-to-item weights (J, J), diagonal 0; source: steck2019."""
    chosen = np.sort(np.argsort(-log.popularity, kind="stable")[:EASE_ITEMS])
    likes = log.likes[:, chosen]
    gram = np.asfortranarray((likes.T @ likes).toarray().astype(np.float32))
    gram[np.diag_indices_from(gram)] += EASE_REG
    lower, _ = lapack.spotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = lapack.spotri(lower, lower=True, overwrite_c=True)
    inverse = np.tril(inverse)
    weights = inverse + np.tril(inverse, -1).T
    weights /= -np.diag(inverse)[None]
    np.fill_diagonal(weights, 0)
    return chosen, weights


def score_by_ease(log: TrainLog, taste: sparse.csr_matrix, fitted: tuple[np.ndarray, np.ndarray]) -> Scores:
    chosen, weights = fitted

    def score(rows: np.ndarray) -> np.ndarray:
        scores = np.full((len(rows), len(log.items)), -np.inf)
        scores[:, chosen] = taste[rows][:, chosen] @ weights
        return scores

    return score


def fit_als(log: TrainLog) -> AlternatingLeastSquares:
    """Fit implicit matrix factorization on all likes (hu2008)."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        FACTORS, ALS_REG, iterations=ITERATIONS, random_state=SEED, dtype=np.float32, num_threads=1
    )
    with threadpool_limits(1, "blas"):
        model.fit(_confidence(log.likes), show_progress=False)
    return model


def score_by_als(taste: sparse.csr_matrix, model: AlternatingLeastSquares) -> Scores:
    """Score items by their factors and the user's, which is computed from `taste`."""

    def score(rows: np.ndarray) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            folded = model.recalculate_user(rows, _confidence(taste[rows]))
        return (folded @ model.item_factors.T).astype(float)

    return score


def _confidence(taste: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.csr_matrix(taste * CONFIDENCE, dtype=np.float32)


def score_own_items(log: TrainLog, own: sparse.csr_matrix) -> Scores:
    """Score the user's own items by `own` (at least 1), then other items by popularity, which also breaks ties."""
    fill = 0.5 * log.popularity / max(log.popularity.max(), 1)
    return lambda rows: own[rows].toarray() + fill


def build_baselines(log: TrainLog) -> dict[str, Callable[[], Scores]]:
    """Map each name to a function that fits the baseline; models that two baselines share are fitted once."""
    ease, als = cache(lambda: fit_ease(log)), cache(lambda: fit_als(log))
    found = {
        "popularity": lambda: score_by_counts(log.popularity),
        "popularity, recent": lambda: score_by_counts(log.newest),
        "item cosine": lambda: score_by_cosine(log, log.likes),
        "item cosine, recent": lambda: score_by_cosine(log, log.recent),
        "EASE": lambda: score_by_ease(log, log.likes, ease()),
        "EASE, recent": lambda: score_by_ease(log, log.recent, ease()),
        "ALS": lambda: score_by_als(log.likes, als()),
        "ALS, recent": lambda: score_by_als(log.recent, als()),
    }
    if log.repeats:
        found["own most frequent"] = lambda: score_own_items(log, log.counts)
        found["own most recent"] = lambda: score_own_items(log, log.last)
    return found


def list_items(log: TrainLog, score: Scores, users: Sequence[str]) -> list[list[str]]:
    """List the TOP best items of each user."""
    tie = TIE * log.popularity / max(log.popularity.max(), 1)
    rows = np.array([log.users[user] for user in users])
    lists = []
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        scores = score(chunk) + tie
        if not log.repeats:
            scores[log.seen[chunk].nonzero()] = -np.inf
        top = np.argpartition(-scores, min(TOP, scores.shape[1]) - 1, axis=1)[:, :TOP]
        values = np.take_along_axis(scores, top, axis=1)
        best = np.argsort(-values, axis=1, kind="stable")
        for order, items, value in zip(best, top, values, strict=True):
            lists.append([str(log.items[items[place]]) for place in order if np.isfinite(value[place])])
    return lists


def score_lists(lists: Sequence[Sequence[str]], held_out: Sequence[set[str]]) -> ListMetrics:
    """Compute NDCG and recall of each user's list against the held-out items of the user."""
    discount = 1 / np.log2(np.arange(TOP) + 2)
    ndcg, recall = np.zeros(len(lists)), np.zeros(len(lists))
    for row, (items, relevant) in enumerate(zip(lists, held_out, strict=True)):
        hit = np.array([item in relevant for item in items[:TOP]], bool)
        ndcg[row] = discount[: len(hit)][hit].sum() / discount[: len(relevant)].sum()
        recall[row] = hit.sum() / len(relevant)
    return ListMetrics(ndcg, recall, len({item for items in lists for item in items[:TOP]}))


def build_rows(name: str, scored: dict[str, ListMetrics]) -> list[dict[str, Any]]:
    """Build one row per model, best first, with the 95 % interval of its NDCG."""
    found = estimate_means({n: each.ndcg for n, each in scored.items()}, np.arange(len(scored["popularity"].ndcg)))
    rows = [
        {"set": name, "model": model, METRIC: found[model].mean, "low": found[model].low,
         "high": found[model].high, f"recall@{TOP}": float(each.recall.mean()), "items shown": each.shown}
        for model, each in scored.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row[METRIC])
