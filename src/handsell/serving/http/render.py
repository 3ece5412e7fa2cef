"""Convert slates from arrays to answers, and to the impressions that are logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE, Candidates, Slates
from handsell.core.funnel import pack_source_bits
from handsell.reranking.reasons import REASONS
from handsell.serving.http.answers import Item, RankedItem, Reason, RecommendedItem
from handsell.serving.http.metadata import describe_rows


@dataclass(frozen=True, slots=True)
class RenderedSlate:
    """One slate as ids: n items, padding removed."""

    item_id: list[str]
    score: list[float]
    sources: list[list[str]]
    reason: list[Reason]
    propensity: list[float]
    item: np.ndarray  # (n,) int32
    reason_item: np.ndarray  # (n,) int32, the item that each reason refers to, or NONE
    rules: str | None  # version of the business rules applied


def render_slate(slates: Slates, row: int, count: int, snapshot: Snapshot) -> RenderedSlate:
    """Render the first `count` items of one slate."""
    item = slates.item[row, :count]
    item = item[item != NONE]
    n = len(item)
    bits = slates.source[row, :n].tolist()
    about = slates.reason_item[row, :n]
    about_ids = snapshot.items.ids(np.maximum(about, 0)) if n else []
    return RenderedSlate(
        item_id=snapshot.items.ids(item) if n else [],
        score=round_scores(slates.score[row, :n]),
        sources=[source_names(slates.sources, b) for b in bits],
        reason=[
            Reason(code=REASONS[code], item_id=item_id if number != NONE else None)
            for code, number, item_id in zip(slates.reason[row, :n].tolist(), about.tolist(), about_ids, strict=True)
        ],
        propensity=round_scores(slates.propensity[row, :n]),
        item=item,
        reason_item=about,
        rules=None if slates.rules is None else slates.rules.version,
    )


def round_scores(values: np.ndarray) -> list[float]:
    """Round to six digits, about the precision of float32."""
    exact = values.astype(np.float64)
    return np.round(exact if np.isfinite(exact).all() else np.nan_to_num(exact), 6).tolist()


def build_recommended_items(slate: RenderedSlate, snapshot: Snapshot, metadata: bool) -> list[RecommendedItem]:
    """The items of a slate with their sources and reasons; with metadata, reasons name the title of their item."""
    about = _describe(slate.item_id, slate.score, slate.item, snapshot, metadata)
    reasons = _name_titles(slate, snapshot) if metadata else slate.reason
    return [
        RecommendedItem(**item, sources=sources, reason=reason)
        for item, sources, reason in zip(about, slate.sources, reasons, strict=True)
    ]


def _name_titles(slate: RenderedSlate, snapshot: Snapshot) -> list[Reason]:
    """Return the reasons, each with the title of the item that it refers to, where that has one."""
    reasons, known = list(slate.reason), np.flatnonzero(slate.reason_item != NONE)
    rows = snapshot.read_metadata(slate.reason_item[known])
    titles = rows["title"].to_pylist() if "title" in rows.column_names else [None] * len(known)
    for place, title in zip(known.tolist(), titles, strict=True):
        if isinstance(title, str) and title:
            reasons[place] = Reason(code=reasons[place].code, item_id=reasons[place].item_id, title=title)
    return reasons


def build_ranked_items(ranked: Candidates, snapshot: Snapshot) -> list[RankedItem]:
    """The caller's own items, ranked, with the sources that have a score for each."""
    real = ranked.item[0] != NONE  # a stage may not know a new item yet
    item, bits = ranked.item[0, real], pack_source_bits(ranked.source_rank)[0, real].tolist()
    about = _describe(snapshot.items.ids(item), round_scores(ranked.score[0, real]), item, snapshot, False)
    return [
        RankedItem(**entry, sources=source_names(ranked.sources, known))
        for entry, known in zip(about, bits, strict=True)
    ]


def build_items(item: np.ndarray, score: np.ndarray, snapshot: Snapshot, metadata: bool) -> list[Item]:
    """Items (n,) of a public list."""
    ids = snapshot.items.ids(item) if len(item) else []
    return [Item(**entry) for entry in _describe(ids, round_scores(score), item, snapshot, metadata)]


def _describe(
    ids: list[str], score: list[float], item: np.ndarray, snapshot: Snapshot, metadata: bool
) -> list[dict[str, Any]]:
    """Return the fields of `Item`; metadata if requested."""
    items: list[dict[str, Any]] = [
        {"item_id": i, "rank": rank, "score": value}
        for rank, (i, value) in enumerate(zip(ids, score, strict=True), start=1)
    ]
    if metadata:
        for entry, row in zip(items, describe_rows(snapshot.read_metadata(item), np.arange(len(item))), strict=True):
            entry["metadata"] = row
    return items


def source_names(sources: Sequence[str], bits: int) -> list[str]:
    """The sources whose bit is set."""
    return [name for s, name in enumerate(sources) if bits >> s & 1]


def encode_impression(slate: RenderedSlate, arms: Mapping[str, Any]) -> str:
    """Encode the `items` of a logged slate with its arms, see events.store.interface."""
    columns = _build_columns(slate.item_id, slate.score, slate.propensity, slate.sources)
    if slate.rules is not None:
        columns["rules"] = slate.rules
    return orjson.dumps({**columns, **arms} if arms else columns).decode()


def encode_ranked(items: Sequence[RankedItem], arms: Mapping[str, Any]) -> str:
    """Encode the caller's own items that will be shown, like `encode_impression`; nothing is left to chance."""
    ids, scores, sources = ([getattr(item, name) for item in items] for name in ("item_id", "score", "sources"))
    return orjson.dumps({**_build_columns(ids, scores, [1.0] * len(items), sources), **arms}).decode()


def _build_columns(ids: list[str], scores: list[float], propensities: list[float], sources: list[list[str]]) -> dict:
    return {"item_id": ids, "score": scores, "propensity": propensities, "sources": sources}
