"""From arrays to what callers read: answers, metadata, and the impression that is logged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Slates
from handsell.reranking.reasons import REASONS

NOT_SHOWN = ("item_id", "text", "available")  # metadata columns that callers have, or have no use for


@dataclass(frozen=True, slots=True)
class RenderedSlate:
    """One slate as ids: n items, padding removed."""

    item_id: list[str]
    score: list[float]
    sources: list[list[str]]
    reason: list[dict[str, str | None]]
    propensity: list[float]
    item: np.ndarray  # (n,) int32
    rules: str | None  # version of the business rules that it was made with


def shown(slates: Slates, row: int, count: int, snapshot: Snapshot) -> RenderedSlate:
    """The first `count` items of one slate."""
    item = slates.item[row, :count]
    item = item[item != NONE]
    n = len(item)
    bits = slates.source[row, :n].tolist()
    about = slates.reason_item[row, :n]
    about_ids = snapshot.items.ids(np.maximum(about, 0)) if n else []
    return RenderedSlate(
        item_id=snapshot.items.ids(item) if n else [],
        score=scores(slates.score[row, :n]),
        sources=[[name for s, name in enumerate(slates.sources) if b >> s & 1] for b in bits],
        reason=[
            {"code": REASONS[code], "item_id": item_id if number != NONE else None}
            for code, number, item_id in zip(slates.reason[row, :n].tolist(), about.tolist(), about_ids, strict=True)
        ],
        propensity=scores(slates.propensity[row, :n]),
        item=item,
        rules=None if slates.rules is None else slates.rules.version,
    )


def scores(values: np.ndarray) -> list[float]:
    """Six digits are more than float32 holds."""
    return np.round(np.nan_to_num(values.astype(np.float64)), 6).tolist()


def slate_items(slate: RenderedSlate, snapshot: Snapshot, metadata: bool) -> list[dict[str, Any]]:
    items = listed(slate.item_id, slate.score, slate.item, snapshot, metadata)
    for item, sources, reason in zip(items, slate.sources, slate.reason, strict=True):
        item["sources"], item["reason"] = sources, reason
    return items


def listed(
    ids: list[str], score: list[float], item: np.ndarray, snapshot: Snapshot, metadata: bool
) -> list[dict[str, Any]]:
    """Items with rank and score, and their metadata when asked for."""
    items: list[dict[str, Any]] = [
        {"item_id": i, "rank": rank, "score": value}
        for rank, (i, value) in enumerate(zip(ids, score, strict=True), start=1)
    ]
    if metadata:
        for entry, row in zip(items, metadata_rows(snapshot, item), strict=True):
            entry["metadata"] = row
    return items


def metadata_rows(snapshot: Snapshot, item: np.ndarray) -> list[dict[str, Any]]:
    """What is known of each item, nulls left out."""
    names = [name for name in snapshot.metadata.column_names if name not in NOT_SHOWN]
    rows = snapshot.metadata.select(names).take(item).to_pylist()
    return [{k: _plain(v) for k, v in row.items() if v is not None and v != []} for row in rows]


def _plain(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def impression_items(slate: RenderedSlate) -> str:
    """The `items` of a logged slate, see events.impressions."""
    columns: dict[str, Any] = {
        "item_id": slate.item_id, "score": slate.score, "propensity": slate.propensity, "sources": slate.sources,
    }  # fmt: skip
    if slate.rules is not None:
        columns["rules"] = slate.rules
    return orjson.dumps(columns).decode()
