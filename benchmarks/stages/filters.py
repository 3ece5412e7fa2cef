"""Filter expressions over a catalog: what one costs when it is new, and once its mask is kept.

    python -m benchmarks filters --items 1000000

`first` is a new expression in a process that has just mapped its catalog and made itself ready, as replicas do
(`ready`); `new` and `worst` are the median and the worst of `--runs` later ones (the same text with other spaces:
parsed, checked and run over all items again). `kept` is the same text once more; `request` what the kept mask adds to
the eligibility mask of one request.
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

from benchmarks.report import report
from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import History, Profile, Ragged, Requests, Seen
from handsell.eligibility.config import Surface
from handsell.eligibility.filters import filters_of
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
NEW_MS, KEPT_MS = 30.0, 0.2  # what is aimed at, for a million items


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        catalog(options.items).save(Path(folder))
        rows = [measured(text, Snapshot.load(Path(folder)), options.runs) for text in EXPRESSIONS]
    late = [row["expression"] for row in rows if row["first ms"] > NEW_MS or row["kept µs"] > 1_000 * KEPT_MS]
    about = {"items": options.items, "target_new_ms": NEW_MS, "target_kept_ms": KEPT_MS, "not_met_by": late}
    report("filters", rows, about, options.json)


def measured(text: str, shelf: Snapshot, runs: int) -> dict[str, Any]:
    """One expression on a freshly loaded catalog."""
    filters = filters_of(shelf)
    filters.check("item.year is null")  # the parser is made once in a process
    ready = milliseconds(filters.prepare)
    first = milliseconds(lambda: filters.mask(text))
    new = [milliseconds(lambda t=text + " " * (run + 1): filters.mask(t)) for run in range(runs)]  # type: ignore[misc]
    kept = [milliseconds(lambda: filters.mask(text)) for _ in range(1_000)]
    eligibility, asked = Eligibility(shelf, (Surface(),)), one_request()
    with_it = asked.with_filters([text])
    extra = [
        milliseconds(lambda: eligibility.mask(with_it)) - milliseconds(lambda: eligibility.mask(asked))
        for _ in range(200)
    ]
    return {
        "expression": text,
        "passes %": 100.0 * float(filters.mask(text).mean()),
        "ready ms": ready,
        "first ms": first,
        "new ms": statistics.median(new),
        "worst ms": max(new),
        "kept µs": 1_000 * statistics.median(kept),
        "request ms": statistics.median(extra),
    }


def milliseconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1_000


def catalog(items: int) -> Snapshot:
    """Items with a title, about two and a half tags, one or two creators, and numbers of which some are unknown."""
    rng = np.random.default_rng(5)
    empty = np.zeros(items, np.int32)
    names = {name: Vocabulary.of(()) for name in ("creators", "tags")}
    metadata = pa.table(
        {
            "item_id": [f"i{i}" for i in range(items)],
            "title": [f"Title {i}" for i in range(items)],
            "creators": lists(rng, items, 1, 2, [f"artist {i}" for i in range(max(items // 10, 1))]),
            "tags": lists(rng, items, 0, 5, [f"genre {i}" for i in range(200)]),
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


def lists(rng: np.random.Generator, items: int, least: int, most: int, words: list[str]) -> pa.Array:
    """So many words for each item."""
    offsets = np.concatenate([[0], np.cumsum(rng.integers(least, most + 1, items))]).astype(np.int32)
    drawn = pa.array(words).take(pa.array(rng.integers(0, len(words), offsets[-1])))
    return pa.ListArray.from_arrays(pa.array(offsets), drawn)


def one_request() -> Requests:
    nothing = np.zeros((1, 0), np.float32)
    none = nothing.astype(np.int32)
    return Requests(
        user=np.zeros(1, np.int32), time=np.ones(1, np.int64), surface=np.zeros(1, np.int8),
        history=History.empty(1, 1), profile=Profile(nothing, none, nothing, none, nothing),
        seen=Seen(Ragged.empty(1), Ragged.empty(1, np.int64)), exclude=Ragged.empty(1),
    )  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks filters", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=9, help="new expressions of each kind (default 9)")
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
