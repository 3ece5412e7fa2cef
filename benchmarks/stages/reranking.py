"""Re-ranking 50 → 30: what a request pays, with the shipped dials, and with every rule and preference on.

    python -m benchmarks reranking

One thread. A batch shares its arrays: `ms` is for a request of it. `select` is the greedy selection alone; the rest is
eligibility, likeness and reasons. CPU time (`--cpu`) leaves out what other processes do to the clock.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report
from benchmarks.stages.filters import catalog
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, RerankingConfig
from handsell.core.batches import Candidates, History, Profile, Ragged, Requests, Seen
from handsell.core.funnel import run_local
from handsell.eligibility.mask import Eligibility
from handsell.features.views import ITEM_ACTIVITY
from handsell.reranking import stage as stages

BATCHES = (1, 8, 16)
K, N, HISTORY, ITEMS, TAGS = 50, 30, 50, 8_000, 60
DIALS: dict[str, dict[str, Any]] = {
    "plain top-n": {"diversity": 0.0, "calibration": 0.0, "novelty": 0.0, "same_creator_gap": 0},
    "mmr, creator gap": {"selection": "mmr", "diversity": 0.05, "calibration": 0.0, "novelty": 0.0},
    "shipped": {},
    "shipped, category window, exploration, serendipity, by taste": {
        "category_window": 5, "category_most": 2, "serendipity": 0.1, "diversity_by_taste": 0.5,
        "exploration": {"share": 0.1, "positions": (5, 10, 20)},
    },
}  # fmt: skip


def main() -> None:
    options = _options()
    shelf = _shelf()
    rows = [_measured(shelf, name, dials, options) for name, dials in DIALS.items()]
    about = {"candidates": K, "slate": N, "history": HISTORY, "clock": "cpu" if options.cpu else "wall"}
    report("reranking", rows, about, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reranking", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=300, help="of each batch; the median counts")
    parser.add_argument("--cpu", action="store_true", help="CPU time of this thread instead of wall time")
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    return parser.parse_args()


def _measured(shelf: Any, name: str, dials: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    config = Config(name="benchmark", reranking=RerankingConfig.model_validate(dials))
    stage = stages.LocalReranking(shelf, Eligibility.of(shelf, config), config)
    clock = time.thread_time if options.cpu else time.perf_counter
    told: dict[str, Any] = {"dials": name}
    for rows in BATCHES:
        asked, found = _asked(rows), _found(rows)
        inside: list[float] = []
        whole = [_timed(clock, stage, asked, found, inside) for _ in range(options.runs)]
        told[f"ms, batch of {rows}"] = float(np.median(whole)) * 1_000 / rows
        told[f"select, {rows}"] = float(np.median(inside)) * 1_000 / rows
    return told


def _timed(clock: Callable[[], float], stage: Any, asked: Requests, found: Candidates, inside: list[float]) -> float:
    """Seconds of one batch; those of the selection are put into `inside`."""
    original = stages.select

    def watched(*args: Any, **more: Any) -> Any:
        began = clock()
        chosen = original(*args, **more)
        inside.append(clock() - began)
        return chosen

    stages.select = watched
    try:
        began = clock()
        run_local(stage.rerank(asked, found, N))
        return clock() - began
    finally:
        stages.select = original


def _shelf() -> Any:
    from dataclasses import replace

    rng, shelf = np.random.default_rng(0), catalog(ITEMS)
    rows = [rng.choice(TAGS, rng.integers(1, 5), replace=False) for _ in range(ITEMS)]
    return replace(
        shelf, tags=Vocabulary.of(f"t{i}" for i in range(TAGS)), item_tags=Ragged.from_rows(rows),
        creators=Vocabulary.of(f"c{i}" for i in range(ITEMS // 10)),
        creator=rng.integers(0, ITEMS // 10, ITEMS).astype(np.int32),
        values=rng.gamma(1, 50, (ITEMS, len(ITEM_ACTIVITY))).astype(np.float32), value_names=ITEM_ACTIVITY,
    )  # fmt: skip


def _asked(rows: int) -> Requests:
    rng = np.random.default_rng(1)
    item = rng.integers(0, ITEMS, (rows, HISTORY)).astype(np.int32)
    weight = np.ones(item.shape, np.float32)
    tag = np.stack([rng.permutation(TAGS) for _ in range(rows)]).astype(np.int32)
    history = History(item, np.ones(item.shape, np.int8), np.ones(item.shape, np.int64), weight)
    creator = rng.integers(0, ITEMS // 10, tag.shape).astype(np.int32)
    profile = Profile(np.zeros((rows, 2), np.float32), creator, tag + 1.0, tag, rng.random(tag.shape))
    return Requests(
        user=np.arange(rows, dtype=np.int32), time=np.full(rows, 10**15), surface=np.zeros(rows, np.int8),
        history=history, profile=profile, exclude=Ragged.empty(rows),
        seen=Seen(Ragged.from_rows(list(item)), Ragged.from_rows(list(np.ones(item.shape)), np.int64)),
    )  # fmt: skip


def _found(rows: int) -> Candidates:
    rng = np.random.default_rng(2)
    item = np.stack([rng.permutation(ITEMS)[:K] for _ in range(rows)]).astype(np.int32)
    score = -np.sort(-rng.random((rows, K)).astype(np.float32), axis=1)
    rank = rng.integers(0, 300, (rows, K, 6)).astype(np.float32)
    return Candidates(item, score, 1 / (1 + rank), rank, score, tuple("abcdef"))


if __name__ == "__main__":
    main()
