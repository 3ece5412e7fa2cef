"""Baselines of a few lines each on a deployment's train table: what a service has to beat to be worth running.

They know user, item, order and type of the events and nothing else. Their settings are the usual ones, the same on
every data set, and none was chosen on the test part. Where the home surface does not repeat items, what a user has
seen is left out of the lists; where it does, two baselines recommend the user's own items again.
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
from handsell.evaluation.intervals import means

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

TOP = 10
METRIC = f"ndcg@{TOP}"
HALF_EVENTS = 10  # a like counts half as much as one that is so many likes newer
NEWEST = 0.1  # share of all likes that recent popularity counts
EASE_REG, EASE_ITEMS = 200.0, 15_000  # ridge penalty (steck2019), most items in the dense matrix
FACTORS, ITERATIONS, SEED = 64, 15, 7
CONFIDENCE, ALS_REG = 10.0, 10.0  # chosen on the development parts of ml-100k, ml-latest-small and beauty
CHUNK = 512  # users scored at once
TIE = 1e-6  # weight of popularity where a baseline has no opinion

Scores = Callable[[np.ndarray], np.ndarray]  # rows (B,) of users → (B, I) float, larger is better


@dataclass(frozen=True)
class TrainLog:
    """A train table as matrices of U users and I items, ids in sorted order."""

    users: dict[str, int]
    items: np.ndarray  # (I,) text
    likes: sparse.csr_matrix  # (U, I) 1 where an event of positive weight is
    recent: sparse.csr_matrix  # (U, I) 0.5 ** (newer likes of the user / HALF_EVENTS)
    counts: sparse.csr_matrix  # (U, I) number of likes
    last: sparse.csr_matrix  # (U, I) place of the item's last like in the user's history, from 1
    seen: sparse.csr_matrix  # (U, I) 1 where any event is that counts as having the item
    newest: np.ndarray  # (I,) likes among the newest tenth of all
    repeats: bool  # seen items may be recommended again

    @property
    def popularity(self) -> np.ndarray:
        """(I,) users who like the item."""
        return np.asarray(self.likes.sum(axis=0), float).ravel()


@dataclass(frozen=True)
class Judged:
    """How good the lists of U users are."""

    ndcg: np.ndarray  # (U,)
    recall: np.ndarray  # (U,)
    shown: int  # distinct items in all lists


def read_log(folder: Path) -> TrainLog:
    """Read train.csv and what served.toml says of event types and repeats."""
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
    matrices = _matrices(user[liked], item[liked], shape)
    return TrainLog(users, item_ids, *matrices, _matrix(user[seen], item[seen], shape), newest, repeats)


def _matrices(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> list[sparse.csr_matrix]:
    """likes, recent, counts and last of likes in order of time."""
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
    return [likes, recent, counts, sparse.csr_matrix((place[first].astype(float), (u, i)), shape)]


def _matrix(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    found = sparse.csr_matrix((np.ones(len(user)), (user, item)), shape)
    found.data[:] = 1
    return found


def score_by_counts(counts: np.ndarray) -> Scores:
    """The same list for everyone."""
    return lambda rows: np.tile(counts, (len(rows), 1))


def score_by_cosine(log: TrainLog, taste: sparse.csr_matrix) -> Scores:
    """Sum of cosines between the item's users and those of the items in the user's taste."""
    gram = sparse.csr_matrix(log.likes.T @ log.likes)
    norm = sparse.diags(1 / np.sqrt(np.maximum(gram.diagonal(), 1)))
    gram.setdiag(0)
    cosine = sparse.csr_matrix(norm @ gram @ norm)
    return lambda rows: (taste[rows] @ cosine).toarray()


def fit_ease(log: TrainLog) -> tuple[np.ndarray, np.ndarray]:
    """The items of the dense matrix (J,) and item-to-item weights (J, J), diagonal 0; source: steck2019."""
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
    """Implicit matrix factorization of all likes (hu2008)."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        FACTORS, ALS_REG, iterations=ITERATIONS, random_state=SEED, dtype=np.float32, num_threads=1
    )
    with threadpool_limits(1, "blas"):
        model.fit(_confidence(log.likes), show_progress=False)
    return model


def score_by_als(taste: sparse.csr_matrix, model: AlternatingLeastSquares) -> Scores:
    """Inner products with the item factors; users are folded in with their taste."""

    def score(rows: np.ndarray) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            folded = model.recalculate_user(rows, _confidence(taste[rows]))
        return (folded @ model.item_factors.T).astype(float)

    return score


def _confidence(taste: sparse.csr_matrix) -> sparse.csr_matrix:
    return sparse.csr_matrix(taste * CONFIDENCE, dtype=np.float32)


def score_own_items(log: TrainLog, own: sparse.csr_matrix) -> Scores:
    """The user's own items in the order of `own`, values of at least 1; then, and among equals, popular ones."""
    fill = 0.5 * log.popularity / max(log.popularity.max(), 1)
    return lambda rows: own[rows].toarray() + fill


def build_baselines(log: TrainLog) -> dict[str, Callable[[], Scores]]:
    """Name → function that fits the baseline; a model that two of them read is fitted once."""
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
    """The TOP best items of each user."""
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


def judge(lists: Sequence[Sequence[str]], wanted: Sequence[set[str]]) -> Judged:
    """NDCG and recall of each user's list against the items that the user held out."""
    discount = 1 / np.log2(np.arange(TOP) + 2)
    ndcg, recall = np.zeros(len(lists)), np.zeros(len(lists))
    for row, (items, held_out) in enumerate(zip(lists, wanted, strict=True)):
        hit = np.array([item in held_out for item in items[:TOP]], bool)
        ndcg[row] = discount[: len(hit)][hit].sum() / discount[: len(held_out)].sum()
        recall[row] = hit.sum() / len(held_out)
    return Judged(ndcg, recall, len({item for items in lists for item in items[:TOP]}))


def describe(name: str, judged: dict[str, Judged]) -> list[dict[str, Any]]:
    """One row per contender, the best first, with the 95 % interval of its NDCG."""
    found = means({n: each.ndcg for n, each in judged.items()}, np.arange(len(judged["popularity"].ndcg)))
    rows = [
        {"set": name, "contender": contender, METRIC: found[contender].mean, "low": found[contender].low,
         "high": found[contender].high, f"recall@{TOP}": float(each.recall.mean()), "items shown": each.shown}
        for contender, each in judged.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row[METRIC])
