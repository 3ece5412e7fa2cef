"""One part of a batch run: the slates of some users, written once and logged as impressions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.bundles.local_bundle import LocalBundle
from handsell.config import Config, load_config
from handsell.core.batches import NONE, Requests, Slates
from handsell.core.errors import TrainingError
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US
from handsell.events.store.interface import EventReader
from handsell.events.store.opening import open_reader
from handsell.jobs.batch.batch_run import BatchRun, PartCounts
from handsell.jobs.batch.slate_log import log_slates
from handsell.reranking.reasons import REASONS

MASK_CELLS = 32_000_000  # most cells of the eligibility mask in memory
MAX_BATCH = 128  # users: 128 × 1000 candidates × 60 features × 4 bytes = 31 MB

TEXTS = pa.list_(pa.string())
SLATES = pa.schema(
    [
        ("recommendation_id", pa.string()), ("user_id", pa.string()), ("time", pa.int64()), ("item_id", TEXTS),
        ("score", pa.list_(pa.float32())), ("propensity", pa.list_(pa.float32())), ("sources", pa.list_(TEXTS)),
        ("reason", TEXTS), ("reason_item_id", TEXTS), ("degraded", TEXTS),
    ]
)  # fmt: skip
"""One row a user, lists in the order of the slate; `time` µs."""


def open_worker(source: str, bundle: str) -> LocalBundle:
    """Return the worker of this process, on the catalog as of now; raises BundleError and EventStoreError."""
    worker = load_worker(source, bundle)
    worker.read_changes()
    return worker


@lru_cache(1)
def load_worker(source: str, bundle: str) -> LocalBundle:
    """Load config, stages and feature store, once per worker process."""
    return LocalBundle.open(load_config(source), bundle)


def make_slates(source: str, run: BatchRun, out: str, part: int) -> PartCounts:
    """Task: write a part's Parquet unless it is there, log its slates as shown, and mark it."""
    path = Path(out) / f"part-{part:05d}.parquet"
    counts = path.with_suffix(".counts")
    if not path.is_file():
        done = _write_part(open_worker(source, run.bundle), run, part, path, counts)
    else:
        done = PartCounts(**json.loads(counts.read_text()))
    if run.record:
        log_slates(load_config(source), _impressions(pq.read_table(path), run, part))
    counts.replace(path.with_suffix(".json"))
    return done


def _write_part(worker: LocalBundle, run: BatchRun, part: int, path: Path, counts: Path) -> PartCounts:
    ids = worker.users.ids(np.array(run.of_part(part)))
    reader = open_reader(worker.config)
    try:
        users = _select_below_cap(ids, run, worker.config, reader)
        batch_size = int(np.clip(MASK_CELLS // max(len(worker.stages.snapshot), 1), 1, MAX_BATCH))
        chunks = [users[begin : begin + batch_size] for begin in range(0, len(users), batch_size)]
        rows = [row for chunk in chunks for row in _make_slates(worker, run, chunk, reader)]
    finally:
        reader.close()
    done = PartCounts(len(ids), len(rows), sum(len(row["item_id"]) for row in rows), len(ids) - len(users),
                len(users) - len(rows))  # fmt: skip
    counts.write_text(json.dumps(asdict(done)))
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, SLATES), partial)
    partial.replace(path)
    return done


def _select_below_cap(ids: list[str], run: BatchRun, config: Config, reader: EventReader) -> list[str]:
    """Users below the surface's cap. The run's own slates have its time and do not count."""
    cap = config.surfaces[run.surface].cap
    if cap is None:
        return ids
    counts = reader.count_slates(ids, run.surface, run.time - int(cap.days * DAY_US), run.time)
    return [user_id for user_id in ids if counts.get(user_id, 0) < cap.slates]


def _make_slates(worker: LocalBundle, run: BatchRun, ids: list[str], reader: EventReader) -> list[dict[str, Any]]:
    """Rows of SLATES; users without any item have none."""
    requests = look_up_requests(worker, run.surface, run.time, ids, reader)
    n = worker.config.surfaces[run.surface].count
    slates = run_local(worker.stages.funnel.recommend(requests, n))
    degraded = [cause for cause in slates.degraded if not cause.startswith("retriever:")]
    if degraded:
        raise TrainingError(
            f"{', '.join(degraded)} failed for bundle {run.bundle}: see the log of this job, roll back or train again, "
            "then run it again"
        )
    rows = [_build_row(worker, run, user_id, slates, b) for b, user_id in enumerate(ids)]
    return [row for row in rows if row["item_id"]]


def look_up_requests(
    worker: LocalBundle, surface: str, time: int, user_ids: list[str], reader: EventReader, away: int | None = None
) -> Requests:
    """Build requests as the gateway does at `time` µs; `away` µs as in `build_requests_from_rows`."""
    return worker.build_requests(user_ids, np.full(len(user_ids), time, np.int64), surface, reader, away)


def _build_row(worker: LocalBundle, run: BatchRun, user_id: str, slates: Slates, b: int) -> dict[str, Any]:
    items = worker.stages.snapshot.items
    n = int((slates.item[b] != NONE).sum())
    about = slates.reason_item[b, :n]
    names = items.ids(np.maximum(about, 0)) if n else []
    return {
        "recommendation_id": f"{run.id}-{user_id}",
        "user_id": user_id,
        "time": run.time,
        "item_id": items.ids(slates.item[b, :n]) if n else [],
        "score": slates.score[b, :n].tolist(),
        "propensity": slates.propensity[b, :n].tolist(),
        "sources": [
            [s for bit, s in enumerate(slates.sources) if bits >> bit & 1] for bits in slates.source[b, :n].tolist()
        ],
        "reason": [REASONS[code] for code in slates.reason[b, :n].tolist()],
        "reason_item_id": [None if i == NONE else name for i, name in zip(about.tolist(), names, strict=True)],
        "degraded": list(slates.degraded),
    }


def _impressions(slates: pa.Table, run: BatchRun, part: int) -> Sequence[dict[str, Any]]:
    """A part as rows of the slates table, numbered like those of a gateway."""
    shared = {"gateway": f"{run.id}-{part:05d}", "time": run.time, "surface": run.surface, "bundle": run.bundle}
    names = ("item_id", "score", "propensity", "sources")
    return [
        {
            **shared,
            "recommendation_id": slate["recommendation_id"],
            "sequence": sequence,
            "user_id": slate["user_id"],
            "items": json.dumps({name: slate[name] for name in names}),
        }
        for sequence, slate in enumerate(slates.to_pylist(), start=1)
    ]
