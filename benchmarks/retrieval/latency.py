"""How long does one request take each retriever, and what does it find for somebody new? One thread, one process.

Each family is fitted on the same interactions and asked for k items by users that it knows, one request at a time
and in batches; encoding is part of it, the eligibility mask is not. The floor is what no exact search by vectors
can do without: one matrix product with all items and the k largest of it. Then users who were kept from the fit
come with three likes each: how many find an answer, and how much of the top 5 has a tag or a creator of the three.

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

from benchmarks.report import report
from benchmarks.retrieval.interactions import Shop, from_lines, from_world
from handsell.config import RetrievalConfig
from handsell.core.batches import NONE, Requests
from handsell.core.errors import HandsellError
from handsell.core.protocols import Retriever
from handsell.data.config import WorldConfig
from handsell.retrieval import registry
from handsell.retrieval.config import retrievers

K, TOP, EVENTS, BATCH, WARM_UP = 1_000, 5, 3, 32, 20
NEWCOMERS = 100  # users kept from the fit
FLOOR = "exact dot product"


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            shop = _shop(options)
            rows, new = measure(shop, options)
    except HandsellError as error:
        sys.exit(f"error: {error}")
    about = {
        "users": shop.events.n_users,
        "items": shop.events.n_items,
        "events": len(shop.events),
        "epochs of neural ones": options.epochs,
        "k": min(K, shop.events.n_items),
    }
    report("retrieval_latency", new, about, options.json, {"latency, µs a request": rows})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks retrieval_latency", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--users", type=int, default=20_000, help="of the generated world")
    parser.add_argument("--items", type=int, default=10_000, help="likewise")
    parser.add_argument("--days", type=int, default=14, help="likewise; about 3.5 events a user and day")
    parser.add_argument("--data", type=Path, default=None, help="lines of `user item item …` instead of the world")
    parser.add_argument("--attributes", type=Path, default=None, help="with --data: JSON of item → list of attributes")
    parser.add_argument("--families", default="all", help="names with commas between, or all (default)")
    parser.add_argument("--requests", type=int, default=320, help="of known users, each family's")
    parser.add_argument("--epochs", type=int, default=1, help="of two_tower and sasrec: latency does not depend on it")
    parser.add_argument("--seed", type=int, default=0, help="draws the users")
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    options = parser.parse_args()
    names = list(retrievers()) if options.families == "all" else options.families.split(",")
    if unknown := [name for name in names if name not in retrievers()]:
        parser.error(f"--families: expected some of {', '.join(retrievers())}, got {', '.join(unknown)}")
    if options.attributes and not options.data:
        parser.error("--attributes describes the items of --data: give both")
    options.families = names
    return options


def _shop(options: argparse.Namespace) -> Shop:
    size = RetrievalConfig()["content"].embedding_size
    if options.data is not None:
        return from_lines(options.data, options.attributes, size)
    artists = max(options.items // 10, 1)
    return from_world(WorldConfig(users=options.users, items=options.items, artists=artists, days=options.days), size)


def measure(shop: Shop, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the two tables: times, and answers to newcomers."""
    known, new = chosen_users(shop, options.requests, options.seed)
    seen, config = shop.without(new), retrieval(options.epochs)
    requests = seen.requests(known)
    three = np.stack([shop.liked(user)[:EVENTS] for user in new])
    floor = timed(exact(config["als"].embedding_size, shop.events.n_items, options.seed), requests, shop.events.n_items)
    rows = [_row(FLOOR, 0.0, floor, floor)]
    answers = []
    for name in options.families:
        print(f"{name}: fitting on {len(seen.events):,} events …", flush=True)
        begun = time.perf_counter()
        model: Retriever = registry.fit(name, seen.events, config, seen.content)
        fit_s = time.perf_counter() - begun
        rows.append(_row(name, fit_s, timed(model.retrieve, requests, shop.events.n_items), floor))
        answers.append({"family": name, **welcome(model, seen, three)})
        print(f"{name}: fitted in {fit_s:.1f} s, p50 {rows[-1]['p50']:,.0f} µs", flush=True)
    print("the first newcomer has liked: " + "; ".join(shop.names[item] for item in three[0]), flush=True)
    return rows, answers


def retrieval(epochs: int) -> RetrievalConfig:
    """Defaults, but for the epochs of the neural ones."""
    return RetrievalConfig.model_validate({name: {"epochs": epochs} for name in ("two_tower", "sasrec")})


def chosen_users(shop: Shop, many: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Users with EVENTS likes or more, drawn: `many` known ones and NEWCOMERS (at most half) to keep from the fit."""
    likes = shop.events.positives
    pairs = np.unique(likes.user.astype(np.int64) * likes.n_items + likes.item)
    able = np.flatnonzero(np.bincount(pairs // likes.n_items, minlength=likes.n_users) >= EVENTS)
    drawn = np.random.default_rng(seed).permutation(able)
    if len(drawn) < 2:
        raise HandsellError(f"expected two users or more with {EVENTS} liked items each, got {len(drawn)}: more data")
    new = min(NEWCOMERS, len(drawn) // 2)
    return np.resize(drawn[new:], many), drawn[:new]


Answer = Callable[[Requests, int, np.ndarray], tuple[np.ndarray, np.ndarray]]


def exact(size: int, items: int, seed: int) -> Answer:
    """Queries times all items, and the k largest in no order: nothing is encoded, masked or sorted."""
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.standard_normal((n, size), np.float32) for n in (items, BATCH))

    def answer(requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores = queries[: len(requests)] @ vectors.T
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        return best, np.take_along_axis(scores, best, 1)

    return answer


def timed(answer: Answer, requests: Requests, n_items: int) -> dict[str, float]:
    """µs a request: p50 and p99 one at a time, p50 in batches; and the items that a request was given, in the mean."""
    eligible, k = np.ones((BATCH, n_items), bool), min(K, n_items)
    singles = [requests.take(slice(b, b + 1)) for b in range(len(requests))]
    batches = [requests.take(slice(b, b + BATCH)) for b in range(0, len(requests) - BATCH + 1, BATCH)] or [requests]
    for one in singles[:WARM_UP]:
        answer(one, k, eligible[:1])
    took, given = _clocked(answer, singles, k, eligible)
    answer(batches[0], k, eligible[: len(batches[0])])
    together, _ = _clocked(answer, batches, k, eligible)
    p50, p99 = np.percentile(took, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "batch": float(np.median(together)), "given": given}


def _clocked(answer: Answer, asked: Iterable[Requests], k: int, eligible: np.ndarray) -> tuple[np.ndarray, float]:
    """µs a request of each call, and how many items a request got in the mean."""
    took, given = [], []
    for requests in asked:
        mask = eligible[: len(requests)]
        begun = time.perf_counter_ns()
        items, _ = answer(requests, k, mask)
        took.append((time.perf_counter_ns() - begun) / 1e3 / len(requests))
        given.append((items != NONE).sum(axis=1).mean())
    return np.array(took), float(np.mean(given))


def _row(name: str, fit_s: float, found: dict[str, float], floor: dict[str, float]) -> dict[str, Any]:
    return {
        "family": name,
        "p50": found["p50"],
        "p99": found["p99"],
        "× floor": found["p50"] / floor["p50"],
        f"p50 in batches of {BATCH}": found["batch"],
        "× floor of a batch": found["batch"] / floor["batch"],
        "items given": found["given"],
        "fit s": fit_s,
    }


def welcome(model: Retriever, shop: Shop, three: np.ndarray) -> dict[str, Any]:
    """What unknown users get who have liked items (B, 3); the three themselves are no answer, except to `history`."""
    requests = shop.newcomers(three)
    eligible = np.ones((len(three), shop.events.n_items), bool)
    if getattr(model, "name", "") != "history":
        np.put_along_axis(eligible, three, False, axis=1)
    items, _ = model.retrieve(requests, min(TOP, shop.events.n_items), eligible)
    return {
        "answered": float((items != NONE).any(axis=1).mean()),
        "with a tag of the three": shared(items, three, shop.tags),
        "with a creator": shared(items, three, shop.creators),
        "top 5 of the first": "; ".join(shop.names[item] for item in items[0] if item != NONE) or "nothing",
    }


def shared(items: np.ndarray, three: np.ndarray, has: sparse.csr_matrix) -> float | None:
    """Share of items (B, n) that have a value (I, ·) in common with their row's three; None if none is known."""
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
