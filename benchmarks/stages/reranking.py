"""Latency of re-ranking 50 candidates to 30, with the default settings and with all preferences.

    python -m benchmarks reranking

One thread; figures are ms per request of a batch. `select` is the greedy selection alone; the rest is eligibility,
similarity and reasons. `--cpu` measures CPU time, which other processes do not affect.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import write_report
from benchmarks.stages.filters import build_catalog
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, RerankingConfig
from handsell.core.batches import Candidates, History, Profile, Ragged, Requests, Seen
from handsell.core.funnel import run_local
from handsell.eligibility.mask import Eligibility
from handsell.features.registry import find_features
from handsell.reranking import stage as stages

ITEM_FEATURES = tuple(find_features("item"))

BATCHES = (1, 8, 16)
K, N, HISTORY, ITEMS, TAGS = 50, 30, 50, 8_000, 60
SETTINGS: dict[str, dict[str, Any]] = {
    "plain top-n": {"diversity": 0.0, "calibration": 0.0, "novelty": 0.0, "same_creator_gap": 0},
    "mmr, creator gap": {"selection": "mmr", "diversity": 0.05, "calibration": 0.0, "novelty": 0.0},
    "shipped": {},
    "shipped, category window, exploration, serendipity, by taste": {
        "category_window": 5, "category_most": 2, "serendipity": 0.1, "diversity_by_taste": 0.5,
        "exploration": {"share": 0.1, "positions": (5, 10, 20)},
    },
}  # fmt: skip


def main() -> None:
    options = _parse_options()
    snapshot = _build_snapshot()
    rows = [_measure(snapshot, name, settings, options) for name, settings in SETTINGS.items()]
    about = {"candidates": K, "slate": N, "history": HISTORY, "clock": "cpu" if options.cpu else "wall"}
    write_report("reranking", rows, about, options.json)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reranking", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=300, help="per batch size; the median is reported")
    parser.add_argument("--cpu", action="store_true", help="CPU time of this thread instead of wall time")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def _measure(snapshot: Any, name: str, settings: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    config = Config(name="benchmark", reranking=RerankingConfig.model_validate(settings))
    stage = stages.LocalReranking(snapshot, Eligibility.of(snapshot, config), config)
    clock = time.thread_time if options.cpu else time.perf_counter
    row: dict[str, Any] = {"settings": name}
    for rows in BATCHES:
        requests, found = _build_requests(rows), _build_candidates(rows)
        selection: list[float] = []
        whole = [_measure_s(clock, stage, requests, found, selection) for _ in range(options.runs)]
        row[f"ms, batch of {rows}"] = float(np.median(whole)) * 1_000 / rows
        row[f"select, {rows}"] = float(np.median(selection)) * 1_000 / rows
    return row


def _measure_s(
    clock: Callable[[], float], stage: Any, requests: Requests, found: Candidates, selection: list[float]
) -> float:
    """Measure the seconds of one batch, and append those of the selection to `selection`."""
    original = stages.select

    def timed_select(*args: Any, **more: Any) -> Any:
        begun = clock()
        chosen = original(*args, **more)
        selection.append(clock() - begun)
        return chosen

    stages.select = timed_select
    try:
        begun = clock()
        run_local(stage.rerank(requests, found, N))
        return clock() - begun
    finally:
        stages.select = original


def _build_snapshot() -> Any:
    from dataclasses import replace

    rng, snapshot = np.random.default_rng(0), build_catalog(ITEMS)
    rows = [rng.choice(TAGS, rng.integers(1, 5), replace=False) for _ in range(ITEMS)]
    return replace(
        snapshot, tags=Vocabulary.of(f"t{i}" for i in range(TAGS)), item_tags=Ragged.from_rows(rows),
        creators=Vocabulary.of(f"c{i}" for i in range(ITEMS // 10)),
        creator=rng.integers(0, ITEMS // 10, ITEMS).astype(np.int32),
        values=rng.gamma(1, 50, (ITEMS, len(ITEM_FEATURES))).astype(np.float32), value_names=ITEM_FEATURES,
    )  # fmt: skip


def _build_requests(rows: int) -> Requests:
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


def _build_candidates(rows: int) -> Candidates:
    rng = np.random.default_rng(2)
    item = np.stack([rng.permutation(ITEMS)[:K] for _ in range(rows)]).astype(np.int32)
    score = -np.sort(-rng.random((rows, K)).astype(np.float32), axis=1)
    rank = rng.integers(0, 300, (rows, K, 6)).astype(np.float32)
    return Candidates(item, score, 1 / (1 + rank), rank, score, tuple("abcdef"))


if __name__ == "__main__":
    main()
