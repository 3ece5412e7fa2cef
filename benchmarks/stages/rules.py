"""Re-ranking with business rules: 50 candidates to a slate of 30, with five rules and without.

    python -m benchmarks rules

`rules` is what applying and counting them takes by itself, in the same run: one rule of each kind (a boost, a bury, an
exclude, a pin, a quota of the day). `pin from the catalog` has a pin whose item is never among the candidates.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import report
from benchmarks.stages.filters import catalog
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
    options = _options()
    rng = np.random.default_rng(5)
    shelf = _shelf(rng, options.items)
    config = Config(name="rules", surfaces={"home": Surface(repeat="allow")})
    rows = [
        measured(name, text, shelf, config, batch, options.runs)
        for batch in options.batch
        for name, text in CASES.items()
    ]
    late = [f"{r['case']}, batch of {r['requests']}" for r in rows if r["ms a request"] > TARGET_MS]
    about = {"items": options.items, "candidates": K, "slate": N, "target_ms": TARGET_MS, "not_met_by": late}
    report("rules", rows, about, options.json)


def measured(name: str, text: str, shelf: Snapshot, config: Config, batch: int, runs: int) -> dict[str, Any]:
    """Whole re-rankings, and what the rules take of each; different requests, so that quotas go up and down."""
    rng = np.random.default_rng(7)
    eligibility = Eligibility(shelf, tuple(config.surfaces.values()))
    book = LiveRules(CompiledRules.of(parse_rules(text.encode(), name), shelf, eligibility, config)) if text else None
    stage = LocalReranking(shelf, eligibility, config, rules=book)
    asked = [(_requests(rng, shelf, batch), _candidates(rng, shelf, batch)) for _ in range(50)]
    whole, rules = [], []
    for run in range(runs):
        requests, found = asked[run % len(asked)]
        whole.append(_ms(lambda r=requests, f=found: run_local(stage.rerank(r, f, N))))  # type: ignore[misc]
        if book is not None:
            allowed = eligibility.allows(requests, found.item)
            rules.append(_ms(lambda r=requests, f=found, a=allowed: book.apply(r, f, a, N)))  # type: ignore[misc]
    p50, p95 = np.quantile(whole[runs // 10 :], [0.5, 0.95])
    own = float(np.median(rules[runs // 10 :])) if rules else 0.0
    return {
        "case": name, "requests": batch, "ms a request": p50 / batch, "p50 ms": p50, "p95 ms": p95, "rules p50 ms": own,
    }  # fmt: skip


def _ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1_000


def _shelf(rng: np.random.Generator, items: int) -> Snapshot:
    made = catalog(items)
    tags = [rng.choice(TAGS, rng.integers(1, TAGS_EACH + 1), replace=False).astype(np.int32) for _ in range(items)]
    names = {"tags": TAGS, "creators": CREATORS}
    return replace(
        made,
        creator=rng.integers(0, CREATORS, items).astype(np.int32),
        item_tags=Ragged.from_rows(tags),
        values=rng.random((items, 1)).astype(np.float32),
        value_names=("item_positives_28d",),
        metadata=made.metadata.set_column(
            made.metadata.column_names.index("year"), "year", pa.array(rng.integers(1960, 2026, items))
        ),
        **{name: Vocabulary.of(f"{name} {i}" for i in range(count)) for name, count in names.items()},
    )


def _requests(rng: np.random.Generator, shelf: Snapshot, rows: int) -> Requests:
    now = 1_750_000_000_000_000
    item = rng.integers(0, len(shelf), (rows, T)).astype(np.int32)
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


def _candidates(rng: np.random.Generator, shelf: Snapshot, rows: int) -> Candidates:
    item = np.stack([rng.choice(len(shelf), K, replace=False) for _ in range(rows)]).astype(np.int32)
    rank = rng.integers(0, 300, (rows, K, len(SOURCES))).astype(np.float32)
    score = -np.sort(-rng.random((rows, K)).astype(np.float32), axis=1)
    return Candidates(item, score, rank, rank, score, SOURCES)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks rules", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8, 16], help="requests re-ranked at once")
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
