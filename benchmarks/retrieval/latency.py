"""Latency of each retriever in one thread, and its results for new users.

Each retriever is fitted on the same interactions and returns k items for known users, one request at a time and in
batches. Times include encoding and exclude the eligibility mask. The floor is the least that exact vector search does:
one matrix product with all items, and the k largest scores. Then users without training data request items after three
likes each: the share who get results, and the share of the top 5 with a tag or a creator of the three.

    python -m benchmarks retrieval_latency                              a generated world
    python -m benchmarks retrieval_latency --data F --attributes F      lines of `user item item …`
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.report import write_report
from benchmarks.retrieval.interactions import Dataset, generate_world, load_lines
from handsell.config import RetrievalConfig
from handsell.core.batches import NONE, Requests
from handsell.core.errors import HandsellError
from handsell.core.protocols import Retriever
from handsell.data.config import WorldConfig
from handsell.retrieval import registry
from handsell.retrieval.config import retrievers

K, TOP, EVENTS, BATCH, WARM_UP = 1_000, 5, 3, 32, 20
NEW_USERS = 100  # users excluded from the fit
FLOOR = "exact dot product"


def main() -> None:
    options = _parse_options()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            dataset = _load_dataset(options)
            rows, results = measure(dataset, options)
    except HandsellError as error:
        sys.exit(f"error: {error}")
    about = {
        "users": dataset.events.n_users,
        "items": dataset.events.n_items,
        "events": len(dataset.events),
        "epochs of neural models": options.epochs,
        "k": min(K, dataset.events.n_items),
    }
    write_report("retrieval_latency", results, about, options.json, {"latency, µs per request": rows})


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks retrieval_latency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--users", type=int, default=20_000, help="of the generated world")
    parser.add_argument("--items", type=int, default=10_000, help="of the generated world")
    parser.add_argument("--days", type=int, default=14, help="of the generated world; 3.5 events per user and day")
    parser.add_argument("--data", type=Path, default=None, help="lines of `user item item …` instead of the world")
    parser.add_argument("--attributes", type=Path, default=None, help="with --data: JSON of item → list of attributes")
    parser.add_argument("--families", default="all", help="comma-separated names, or all (default)")
    parser.add_argument("--requests", type=int, default=320, help="of known users, for each retriever")
    parser.add_argument("--epochs", type=int, default=1, help="of two_tower and sasrec; does not affect latency")
    parser.add_argument("--seed", type=int, default=0, help="of the users drawn")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    names = list(retrievers()) if options.families == "all" else options.families.split(",")
    if unknown := [name for name in names if name not in retrievers()]:
        parser.error(f"--families: expected any of {', '.join(retrievers())}, got {', '.join(unknown)}")
    if options.attributes and not options.data:
        parser.error("--attributes describes the items of --data: give both")
    options.families = names
    return options


def _load_dataset(options: argparse.Namespace) -> Dataset:
    size = RetrievalConfig()["content"].embedding_size
    if options.data is not None:
        return load_lines(options.data, options.attributes, size)
    artists = max(options.items // 10, 1)
    return generate_world(
        WorldConfig(users=options.users, items=options.items, artists=artists, days=options.days), size
    )


def measure(dataset: Dataset, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of both tables: latency, and results for new users."""
    known, new = draw_users(dataset, options.requests, options.seed)
    training, config = dataset.exclude_users(new), build_config(options.epochs)
    requests = training.build_requests(known)
    three = np.stack([dataset.liked_items(user)[:EVENTS] for user in new])
    floor = measure_latency(
        build_exact_search(config["als"].embedding_size, dataset.events.n_items, options.seed),
        requests,
        dataset.events.n_items,
    )
    rows = [_row(FLOOR, 0.0, floor, floor)]
    results = []
    for name in options.families:
        print(f"{name}: fitting on {len(training.events):,} events …", flush=True)
        begun = time.perf_counter()
        model: Retriever = registry.fit(name, training.events, config, training.content)
        fit_s = time.perf_counter() - begun
        rows.append(_row(name, fit_s, measure_latency(model.retrieve, requests, dataset.events.n_items), floor))
        results.append({"family": name, **recommend_to_new_users(model, training, three)})
        print(f"{name}: fitted in {fit_s:.1f} s, p50 {rows[-1]['p50']:,.0f} µs", flush=True)
    print("the first new user liked: " + "; ".join(dataset.names[item] for item in three[0]), flush=True)
    return rows, results


def build_config(epochs: int) -> RetrievalConfig:
    """Defaults, except for the epochs of the neural models."""
    return RetrievalConfig.model_validate({name: {"epochs": epochs} for name in ("two_tower", "sasrec")})


def draw_users(dataset: Dataset, many: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw users with EVENTS or more likes: `many` known ones, and NEW_USERS (at most half) to exclude from the fit."""
    likes = dataset.events.positives
    pairs = np.unique(likes.user.astype(np.int64) * likes.n_items + likes.item)
    eligible = np.flatnonzero(np.bincount(pairs // likes.n_items, minlength=likes.n_users) >= EVENTS)
    drawn = np.random.default_rng(seed).permutation(eligible)
    if len(drawn) < 2:
        raise HandsellError(
            f"expected at least two users with {EVENTS} liked items each, got {len(drawn)}: give more data"
        )
    new = min(NEW_USERS, len(drawn) // 2)
    return np.resize(drawn[new:], many), drawn[:new]


Retrieve = Callable[[Requests, int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def build_exact_search(size: int, items: int, seed: int) -> Retrieve:
    """Build a search by one matrix product and `argpartition`, without encoding, masking or sorting."""
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.standard_normal((n, size), np.float32) for n in (items, BATCH))

    def retrieve(requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = queries[: len(requests)] @ vectors.T
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return best, np.take_along_axis(scores, best, 1)

    return retrieve


def measure_latency(retrieve: Retrieve, requests: Requests, n_items: int) -> dict[str, float]:
    """Measure µs per request (p50 and p99 one at a time, p50 in batches) and the mean number of items returned."""
    eligible, k = np.ones((BATCH, n_items), bool), min(K, n_items)
    singles = [requests.take(slice(b, b + 1)) for b in range(len(requests))]
    batches = [requests.take(slice(b, b + BATCH)) for b in range(0, len(requests) - BATCH + 1, BATCH)] or [requests]
    for one in singles[:WARM_UP]:
        retrieve(one, k, eligible[:1])
    took, returned = _time_calls(retrieve, singles, k, eligible)
    retrieve(batches[0], k, eligible[: len(batches[0])])
    together, _ = _time_calls(retrieve, batches, k, eligible)
    p50, p99 = np.percentile(took, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "batch": float(np.median(together)), "returned": returned}


def _time_calls(
    retrieve: Retrieve, batches: Iterable[Requests], k: int, eligible: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return µs per request of each call, and the mean number of items per request."""
    took, returned = [], []
    for requests in batches:
        mask = eligible[: len(requests)]
        begun = time.perf_counter_ns()
        items, _ = retrieve(requests, k, mask)
        took.append((time.perf_counter_ns() - begun) / 1e3 / len(requests))
        returned.append((items != NONE).sum(axis=1).mean())
    return np.array(took), float(np.mean(returned))


def _row(name: str, fit_s: float, found: dict[str, float], floor: dict[str, float]) -> dict[str, Any]:
    return {
        "family": name,
        "p50": found["p50"],
        "p99": found["p99"],
        "× floor": found["p50"] / floor["p50"],
        f"p50 in batches of {BATCH}": found["batch"],
        "× floor of a batch": found["batch"] / floor["batch"],
        "items returned": found["returned"],
        "fit s": fit_s,
    }


def recommend_to_new_users(model: Retriever, dataset: Dataset, three: np.ndarray) -> dict[str, Any]:
    """Recommend to unknown users who liked items (B, 3); only `history` may return the three themselves."""
    requests = dataset.build_new_user_requests(three)
    eligible = np.ones((len(three), dataset.events.n_items), bool)
    if getattr(model, "name", "") != "history":
        np.put_along_axis(eligible, three, False, axis=1)
    items, _ = model.retrieve(requests, min(TOP, dataset.events.n_items), eligible)
    return {
        "answered": float((items != NONE).any(axis=1).mean()),
        "with a tag of the three": share_in_common(items, three, dataset.tags),
        "with a creator": share_in_common(items, three, dataset.creators),
        "top 5 of the first": "; ".join(dataset.names[item] for item in items[0] if item != NONE) or "nothing",
    }


def share_in_common(items: np.ndarray, three: np.ndarray, has: sparse.csr_matrix) -> float | None:
    """Share of items (B, n) with a value (I, ·) in common with the three of their row; None if nothing is known."""
    real = items != NONE
    if not has.shape[1] or not real.any():
        return None
    common = [
        np.asarray(has[row] @ has[liked].sum(axis=0).T).ravel() > 0
        for row, liked in zip(np.maximum(items, 0), three, strict=True)
    ]
    return float(np.stack(common)[real].mean())


if __name__ == "__main__":
    main()
