"""Latency of re-ranking 50 candidates to a slate of 30, with five business rules and without.

    python -m benchmarks rules

The five rules are one of each kind: boost, bury, exclude, pin and daily quota. `rules` is the time to apply and count
them alone, in the same run. `pin from the catalog` pins an item that is never among the candidates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import write_report
from benchmarks.stages.filters import build_catalog
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import Candidates, History, Profile, Ragged, Requests, Seen
from handsell.core.funnel import run_local
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.rules.live_rules import CompiledRules, LiveRules
from handsell.reranking.rules.reading import parse_rules
from handsell.reranking.stage import LocalReranking

K, N, T, A, SOURCES = 50, 30, 50, 64, ("popularity", "item_knn", "als", "two_tower", "content")
CREATORS, TAGS, TAGS_EACH = 10_000, 200, 3
FIVE = """
[[rule]]
name = "fresh"
kind = "boost"
items = "item.year >= 2020"
factor = 1.2
[[rule]]
name = "old"
kind = "bury"
items = "item.year < 1970"
subtract = 0.1
[[rule]]
name = "clean"
kind = "exclude"
items = "item.explicit"
[[rule]]
name = "campaign"
kind = "pin"
items = "{pinned}"
position = 3
[[rule]]
name = "newest"
kind = "quota"
items = "item.year >= 2025"
share = 0.08
"""
CASES = {
    "no rules": "",
    "five rules": FIVE.format(pinned="item.year == 2001"),
    "pin from the catalog": FIVE.format(pinned="item.title == 'Title 7'"),
}
TARGET_MS = 1.0


def main() -> None:
    options = _parse_options()
    rng = np.random.default_rng(5)
    snapshot = _build_snapshot(rng, options.items)
    config = Config(name="rules", surfaces={"home": Surface(repeat="allow")})
    rows = [
        measure(name, text, snapshot, config, batch, options.runs)
        for batch in options.batch
        for name, text in CASES.items()
    ]
    missed = [f"{r['case']}, batch of {r['requests']}" for r in rows if r["ms per request"] > TARGET_MS]
    about = {"items": options.items, "candidates": K, "slate": N, "target_ms": TARGET_MS, "not_met_by": missed}
    write_report("rules", rows, about, options.json)


def measure(name: str, text: str, snapshot: Snapshot, config: Config, batch: int, runs: int) -> dict[str, Any]:
    """Measure re-ranking and its rules, on varying requests, so that quotas change."""
    rng = np.random.default_rng(7)
    eligibility = Eligibility(snapshot, tuple(config.surfaces.values()))
    live_rules = None
    if text:
        live_rules = LiveRules(CompiledRules.of(parse_rules(text.encode(), name), snapshot, eligibility, config))
    stage = LocalReranking(snapshot, eligibility, config, rules=live_rules)
    inputs = [(_build_requests(rng, snapshot, batch), _build_candidates(rng, snapshot, batch)) for _ in range(50)]
    whole, rules = [], []
    for run in range(runs):
        requests, found = inputs[run % len(inputs)]
        whole.append(_measure_ms(lambda r=requests, f=found: run_local(stage.rerank(r, f, N))))  # type: ignore[misc]
        if live_rules is not None:
            allowed = eligibility.allows(requests, found.item)
            apply = partial(live_rules.apply, requests, found, allowed, N)
            rules.append(_measure_ms(apply))
    p50, p95 = np.quantile(whole[runs // 10 :], [0.5, 0.95])
    rules_p50 = float(np.median(rules[runs // 10 :])) if rules else 0.0
    return {
        "case": name, "requests": batch, "ms per request": p50 / batch, "p50 ms": p50, "p95 ms": p95,
        "rules p50 ms": rules_p50,
    }  # fmt: skip


def _measure_ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1_000


def _build_snapshot(rng: np.random.Generator, items: int) -> Snapshot:
    catalog = build_catalog(items)
    tags = [rng.choice(TAGS, rng.integers(1, TAGS_EACH + 1), replace=False).astype(np.int32) for _ in range(items)]
    return replace(
        catalog,
        creator=rng.integers(0, CREATORS, items).astype(np.int32),
        item_tags=Ragged.from_rows(tags),
        values=rng.random((items, 1)).astype(np.float32),
        value_names=("item_positives_28d",),
        metadata=catalog.metadata.set_column(
            catalog.metadata.column_names.index("year"), "year", pa.array(rng.integers(1960, 2026, items))
        ),
        tags=Vocabulary.of(f"tag {i}" for i in range(TAGS)),
        creators=Vocabulary.of(f"creator {i}" for i in range(CREATORS)),
    )


def _build_requests(rng: np.random.Generator, snapshot: Snapshot, rows: int) -> Requests:
    now = 1_750_000_000_000_000
    item = rng.integers(0, len(snapshot), (rows, T)).astype(np.int32)
    history = History(item, np.ones((rows, T), np.int8), np.full((rows, T), now - 1), np.ones((rows, T), np.float32))
    weight = rng.random((rows, A)).astype(np.float32)
    profile = Profile(
        np.zeros((rows, 2), np.float32),
        rng.integers(0, CREATORS, (rows, A)).astype(np.int32), weight,
        np.stack([rng.permutation(TAGS)[:A] for _ in range(rows)]).astype(np.int32), weight,
    )  # fmt: skip
    return Requests(
        user=np.arange(rows, dtype=np.int32), time=np.full(rows, now), surface=np.zeros(rows, np.int8), history=history,
        profile=profile, seen=Seen(Ragged.empty(rows), Ragged.empty(rows, np.int64)), exclude=Ragged.empty(rows),
    )  # fmt: skip


def _build_candidates(rng: np.random.Generator, snapshot: Snapshot, rows: int) -> Candidates:
    item = np.stack([rng.choice(len(snapshot), K, replace=False) for _ in range(rows)]).astype(np.int32)
    rank = rng.integers(0, 300, (rows, K, len(SOURCES))).astype(np.float32)
    score = -np.sort(-rng.random((rows, K)).astype(np.float32), axis=1)
    return Candidates(item, score, rank, rank, score, SOURCES)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks rules", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 16], help="requests per batch")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
