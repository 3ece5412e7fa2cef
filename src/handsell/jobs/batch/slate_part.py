"""One part of a batch run: the slates of some users, written once and logged as impressions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.config import load_config
from handsell.core.batches import NONE
from handsell.events.impressions import name_batch_gateway
from handsell.events.store.opening import open_reader
from handsell.jobs.batch.arm_slates import ArmSlate, ArmSlates
from handsell.jobs.batch.batch_run import BatchRun, PartCounts
from handsell.jobs.batch.slate_log import log_slates
from handsell.reranking.reasons import REASONS

TEXTS = pa.list_(pa.string())
SLATES = pa.schema(
    [
        ("recommendation_id", pa.string()), ("user_id", pa.string()), ("time", pa.int64()), ("item_id", TEXTS),
        ("score", pa.list_(pa.float32())), ("propensity", pa.list_(pa.float32())), ("sources", pa.list_(TEXTS)),
        ("reason", TEXTS), ("reason_item_id", TEXTS), ("degraded", TEXTS), ("bundle", pa.string()),
        ("rules", pa.string()), ("arms", pa.string()), ("experiments", pa.string()),
    ]
)  # fmt: skip
"""One row a user, lists in the order of the slate; `time` µs; `arms` JSON, arm by experiment; `experiments` JSON, what
the impression says of experiments."""
IMPRESSION = ("item_id", "score", "propensity", "sources")


def make_slates(source: str, run: BatchRun, out: str, part: int) -> PartCounts:
    """Task: write a part's Parquet unless it is there, log its slates as shown, and mark it."""
    path = Path(out) / f"part-{part:05d}.parquet"
    counts = path.with_suffix(".counts")
    if not path.is_file():
        done = _write_part(source, run, part, path, counts)
    else:
        done = PartCounts(**json.loads(counts.read_text()))
    if run.record:
        log_slates(load_config(source), _impressions(pq.read_table(path), run, part))
    counts.replace(path.with_suffix(".json"))
    return done


def _write_part(source: str, run: BatchRun, part: int, path: Path, counts: Path) -> PartCounts:
    with closing(open_reader(load_config(source))) as reader:
        slates = ArmSlates(source, run, reader)
        ids = slates.worker.users.ids(np.array(run.of_part(part)))
        made = {slate.user_id: _build_row(run, slate) for slate in slates.make(ids)}
    rows = [made[user_id] for user_id in ids if user_id in made and made[user_id]["item_id"]]
    done = PartCounts(len(ids), len(rows), sum(len(row["item_id"]) for row in rows), len(ids) - len(made),
                len(made) - len(rows))  # fmt: skip
    counts.write_text(json.dumps(asdict(done)))
    partial = path.with_suffix(".partial")
    pq.write_table(pa.Table.from_pylist(rows, SLATES), partial)
    partial.replace(path)
    return done


def _build_row(run: BatchRun, made: ArmSlate) -> dict[str, Any]:
    """One row of SLATES; its items may be none."""
    slates, b, items = made.slates, made.row, made.worker.stages.snapshot.items
    n = int((slates.item[b] != NONE).sum())
    about = slates.reason_item[b, :n]
    names = items.ids(np.maximum(about, 0)) if n else []
    arms, said = made.given.list_arms(), made.given.describe(made.teams[:n])
    return {
        "recommendation_id": made.recommendation_id,
        "user_id": made.user_id,
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
        "bundle": made.given.makers[0].bundle or run.bundle,
        "rules": None if slates.rules is None else slates.rules.version,
        "arms": json.dumps(arms) if arms else None,
        "experiments": json.dumps(said) if said else None,
    }


def _impressions(slates: pa.Table, run: BatchRun, part: int) -> Sequence[dict[str, Any]]:
    """A part as rows of the slates table, numbered like those of a gateway; slates of an earlier version lack arms."""
    shared = {"gateway": name_batch_gateway(run.id, part), "time": run.time, "surface": run.surface}
    return [
        {
            **shared,
            "bundle": slate.get("bundle") or run.bundle,
            "recommendation_id": slate["recommendation_id"],
            "sequence": sequence,
            "user_id": slate["user_id"],
            "items": json.dumps(
                {name: slate[name] for name in IMPRESSION}
                | ({"rules": slate["rules"]} if slate.get("rules") else {})
                | json.loads(slate.get("experiments") or "{}")
            ),
        }
        for sequence, slate in enumerate(slates.to_pylist(), start=1)
    ]
