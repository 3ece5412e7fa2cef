"""Small random snapshots, requests and candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import Candidates, History, Profile, Ragged, Requests, Seen
from handsell.core.units import DAY_US

NOW = 20_000 * DAY_US


def draw_snapshot(
    rng: np.random.Generator,
    items: int = 200,
    creators: int = 20,
    tags: int = 12,
    tags_per_item: int = 4,
    without_creator: float = 0.1,
) -> Snapshot:
    """Draw a catalog as of NOW: ids `i0`, `c0`, `t0`, …; at most `tags_per_item` tags; three numeric columns.

    `without_creator` is the share of items without a creator. All items are available.
    """
    creator = rng.integers(0, creators, items).astype(np.int32)
    creator[rng.random(items) < without_creator] = -1
    rows = [rng.choice(tags, rng.integers(0, tags_per_item + 1), replace=False) for _ in range(items)]
    published = NOW - rng.integers(0, 400, items) * DAY_US
    published[rng.random(items) < 0.1] = ALWAYS
    names = {"items": ("i", items), "creators": ("c", creators), "tags": ("t", tags)}
    return Snapshot(
        version=1,
        as_of=NOW,
        **{key: Vocabulary.of(f"{prefix}{i}" for i in range(size)) for key, (prefix, size) in names.items()},
        creator=creator,
        item_tags=Ragged.from_rows(rows),
        published=published,
        expires=np.full(items, NEVER),
        available=np.ones(items, bool),
        values=rng.normal(size=(items, 3)).astype(np.float32),
        value_names=("a", "b", "c"),
        metadata=pa.table({"item_id": [f"i{i}" for i in range(items)]}),
    )


def draw_requests(
    rng: np.random.Generator,
    snapshot: Snapshot,
    rows: int = 4,
    history: int = 20,
    affinities: int = 8,
    seen: int = 30,
) -> Requests:
    """Draw requests at NOW with histories of different length, profiles and `seen` seen items."""
    item = rng.integers(0, len(snapshot), (rows, history)).astype(np.int32)
    item[np.arange(history) < rng.integers(0, history, rows)[:, None]] = -1
    real = item >= 0
    weight = np.where(real, rng.choice([-1.0, 0.5, 1.0, 2.0], item.shape), 0).astype(np.float32)
    time = np.where(real, NOW - np.arange(history, 0, -1) * DAY_US, 0)
    profile = Profile(
        features=rng.normal(size=(rows, 2)).astype(np.float32),
        creator=rng.integers(-1, max(len(snapshot.creators), 1), (rows, affinities)).astype(np.int32),
        creator_weight=rng.normal(0.3, 1, (rows, affinities)).astype(np.float32),
        tag=rng.integers(-1, max(len(snapshot.tags), 1), (rows, affinities)).astype(np.int32),
        tag_weight=rng.normal(0.3, 1, (rows, affinities)).astype(np.float32),
    )
    seen_items = [rng.choice(len(snapshot), seen, replace=False) for _ in range(rows)]
    return Requests(
        user=np.arange(rows, dtype=np.int32),
        time=np.full(rows, NOW),
        surface=np.zeros(rows, np.int8),
        history=History(item, np.where(real, 1, -1).astype(np.int8), time, weight),
        profile=profile,
        seen=Seen(Ragged.from_rows(seen_items), Ragged.from_rows([np.full(seen, NOW - DAY_US)] * rows, np.int64)),
        exclude=Ragged.empty(rows),
    )


def draw_candidates(
    rng: np.random.Generator,
    snapshot: Snapshot,
    rows: int = 4,
    k: int = 50,
    sources: Sequence[str] = ("popularity", "item_knn", "content"),
    pad: int = 0,
) -> Candidates:
    """Draw distinct items, best first, each from at least one source; the last `pad` columns are padding."""
    item = np.stack([rng.permutation(len(snapshot))[:k] for _ in range(rows)]).astype(np.int32)
    rank = rng.integers(0, 300, (rows, k, len(sources))).astype(np.float32)
    rank[rng.random(rank.shape) < 0.5] = np.nan
    without_source = np.isnan(rank).all(axis=2)
    rank[..., 0][without_source] = 7.0
    item[:, k - pad :] = -1
    rank[:, k - pad :] = np.nan
    score = -np.sort(-rng.random((rows, k)).astype(np.float32), axis=1)
    score[:, k - pad :] = 0
    return Candidates(item, score.copy(), 1 - rank / 300, rank, score, tuple(sources))
