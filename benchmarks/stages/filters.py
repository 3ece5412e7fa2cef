"""Latency of filter expressions over a catalog, with and without a cached mask.

    python -m benchmarks filters --items 1000000

`ready`: preparation after the catalog has been mapped, as replicas do it. `first`: the first expression after that.
`new` and `worst`: median and maximum of `--runs` further expressions that are not cached (the same text with other
spaces: parsed, checked and evaluated over all items again). `cached`: the same text again. `request`: what the cached
mask adds to the eligibility mask of one request.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.report import write_report
from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import History, Profile, Ragged, Requests, Seen
from handsell.eligibility.config import Surface
from handsell.eligibility.filters import get_filters
from handsell.eligibility.mask import Eligibility

EXPRESSIONS = (
    "item.year >= 2015",
    "not item.explicit",
    "'genre 7' in item.tags",
    "item.year >= 2015 and 'genre 7' in item.tags and not item.explicit",
    "item.published_at >= '2020-01-01' and item.energy < 0.3",
    "item.title in ['Title 4711', 'Title 4712']",
    "('genre 7' in item.tags or 'genre 8' in item.tags) and 'artist 12' not in item.creators",
    " and ".join(f"'genre {i}' not in item.tags" for i in range(7, 12)),
    "item.shelf == 7",
)
NEW_MS, CACHED_MS = 30.0, 0.2  # targets for a million items


def main() -> None:
    options = _parse_options()
    with tempfile.TemporaryDirectory() as folder:
        build_catalog(options.items).save(Path(folder))
        rows = [measure(text, Snapshot.load(Path(folder)), options.runs) for text in EXPRESSIONS]
    missed = [row["expression"] for row in rows if row["first ms"] > NEW_MS or row["cached µs"] > 1_000 * CACHED_MS]
    about = {"items": options.items, "target_new_ms": NEW_MS, "target_cached_ms": CACHED_MS, "not_met_by": missed}
    write_report("filters", rows, about, options.json)


def measure(text: str, snapshot: Snapshot, runs: int) -> dict[str, Any]:
    """Measure one expression on a newly loaded catalog."""
    filters = get_filters(snapshot)
    filters.check("item.year is null")  # builds the parser, once per process
    ready = measure_ms(filters.prepare)
    first = measure_ms(lambda: filters.mask(text))
    new = [measure_ms(lambda t=text + " " * (run + 1): filters.mask(t)) for run in range(runs)]  # type: ignore[misc]
    cached = [measure_ms(lambda: filters.mask(text)) for _ in range(1_000)]
    eligibility, request = Eligibility(snapshot, (Surface(),)), build_request()
    filtered = request.with_filters([text])
    extra = [
        measure_ms(lambda: eligibility.mask(filtered)) - measure_ms(lambda: eligibility.mask(request))
        for _ in range(200)
    ]
    return {
        "expression": text,
        "passes %": 100.0 * float(filters.mask(text).mean()),
        "ready ms": ready,
        "first ms": first,
        "new ms": statistics.median(new),
        "worst ms": max(new),
        "cached µs": 1_000 * statistics.median(cached),
        "request ms": statistics.median(extra),
    }


def measure_ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1_000


def build_catalog(items: int) -> Snapshot:
    """Build items with a title, 0 to 5 tags, 1 or 2 creators, and numbers of which some are missing."""
    rng = np.random.default_rng(5)
    empty = np.zeros(items, np.int32)
    names = {name: Vocabulary.of(()) for name in ("creators", "tags")}
    metadata = pa.table(
        {
            "item_id": [f"i{i}" for i in range(items)],
            "title": [f"Title {i}" for i in range(items)],
            "creators": draw_lists(rng, items, 1, 2, [f"artist {i}" for i in range(max(items // 10, 1))]),
            "tags": draw_lists(rng, items, 0, 5, [f"genre {i}" for i in range(200)]),
            "published_at": pa.array(rng.integers(0, 20_000, items) * 86_400_000_000, pa.timestamp("us", tz="UTC")),
            "year": pa.array(rng.integers(1960, 2026, items), mask=rng.random(items) < 0.02),
            "energy": pa.array(rng.random(items, np.float32), mask=rng.random(items) < 0.1),
            "explicit": pa.array(rng.random(items) < 0.1, mask=rng.random(items) < 0.05),
            "shelf": rng.integers(0, 1_000, items),
        }
    )
    return Snapshot(
        version=1, as_of=0, items=Vocabulary.of(metadata["item_id"].to_pylist()), **names, creator=empty - 1,
        item_tags=Ragged.empty(items), published=np.full(items, ALWAYS), expires=np.full(items, NEVER),
        available=np.ones(items, bool), values=np.zeros((items, 0), np.float32), value_names=(), metadata=metadata,
    )  # fmt: skip


def draw_lists(rng: np.random.Generator, items: int, least: int, most: int, words: list[str]) -> pa.Array:
    """Draw `least` to `most` words for each item."""
    offsets = np.concatenate([[0], np.cumsum(rng.integers(least, most + 1, items))]).astype(np.int32)
    drawn = pa.array(words).take(pa.array(rng.integers(0, len(words), offsets[-1])))
    return pa.ListArray.from_arrays(pa.array(offsets), drawn)


def build_request() -> Requests:
    nothing = np.zeros((1, 0), np.float32)
    none = nothing.astype(np.int32)
    return Requests(
        user=np.zeros(1, np.int32), time=np.ones(1, np.int64), surface=np.zeros(1, np.int8),
        history=History.empty(1, 1), profile=Profile(nothing, none, nothing, none, nothing),
        seen=Seen(Ragged.empty(1), Ragged.empty(1, np.int64)), exclude=Ragged.empty(1),
    )  # fmt: skip


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks filters", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=9, help="uncached expressions of each kind (default 9)")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
