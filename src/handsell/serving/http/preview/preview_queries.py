"""Convert parameters of previews to queries, and slates to answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.config.overlay import apply_overlay, merge
from handsell.core.batches import NONE, History, Requests, Slates
from handsell.core.errors import RequestError
from handsell.core.hashing import hash_unit
from handsell.serving.http import render
from handsell.serving.http import schemas as s
from handsell.serving.http.preview import preview_schemas as p
from handsell.serving.http.queries import Query, QueryParser
from handsell.serving.slates.release import Release

DIGITS = 2  # of a dial: stages keep a variant for each value


@dataclass(frozen=True, slots=True)
class PreviewedSlate:
    """A slate that nobody has seen, and the request for which it was made (B = 1)."""

    slates: Slates
    requests: Requests
    cold: bool


def parse_preview(parser: QueryParser, given: p.PreviewParameters, user_id: str, arrived: float) -> Query:
    """Return the query of a preview; raises RequestError (422).

    Its id depends on the user alone, so that exploration draws the same in each preview.
    """
    if given.similar_to is not None:
        return parser.parse_similar(
            given.similar_to, s.SimilarParameters(count=given.count, filter=given.filter), arrived
        )
    session = s.VisitorSession(events=[parse_event(text, i) for i, text in enumerate(given.events)])
    body = s.RecommendationsBody(
        user_id=user_id, session=session, surface=given.surface, count=given.count, filter=given.filter
    )
    return replace(parser.parse_recommendations(body, arrived), recommendation_id=f"{hash_unit(user_id):032x}")


def parse_event(text: str, place: int) -> s.SessionEvent:
    """Read `TYPE:ITEM_ID` or `TYPE=VALUE:ITEM_ID`."""
    kind, _, item_id = text.partition(":")
    name, _, value = kind.partition("=")
    try:
        return s.SessionEvent(type=name, item_id=item_id, value=float(value) if value else None)
    except ValueError:
        raise RequestError(
            f"events.{place}: expected TYPE:ITEM_ID or TYPE=VALUE:ITEM_ID, such as like:i42, got {text!r:.80}",
            field=f"events.{place}",
        ) from None


def find_settings(config: Config) -> p.PreviewSettings:
    """Return the settings of re-ranking that previews can change, with strength multiplied in."""
    scaled = config.reranking.scaled()
    return p.PreviewSettings(
        diversity=round(scaled.diversity, 4), novelty=round(scaled.novelty, 4), exploration=scaled.exploration.share
    )


def add_dials(config: Config, overlay: str, given: p.PreviewParameters) -> str:
    """Return an overlay with the dials of a preview; without any, the same overlay."""
    dials: dict[str, Any] = {}
    if given.diversity is not None or given.novelty is not None:
        scaled = apply_overlay(config, overlay).reranking.scaled()
        names = ("strength", "diversity", "novelty", "calibration", "serendipity")
        dials = {name: getattr(scaled, name) for name in names}  # strength is multiplied in, and 1 from now on
        dials |= {
            name: round(v, DIGITS) for name in ("diversity", "novelty") if (v := getattr(given, name)) is not None
        }
    if given.exploration is not None:
        dials["exploration"] = {"share": round(given.exploration, DIGITS)}
    if not dials:
        return overlay
    return json.dumps(merge(json.loads(overlay or "{}"), {"reranking": dials}), sort_keys=True, separators=(",", ":"))


def build_preview_answer(
    given: p.PreviewParameters, query: Query, made: PreviewedSlate, arms: dict[str, str], bundles: list[str],
    config: Config, snapshot: Snapshot, release: Release,
) -> p.PreviewAnswer:  # fmt: skip
    slate = render.render_slate(made.slates, 0, query.count, snapshot)
    imagined = len(query.session.item)
    return p.PreviewAnswer(
        user_id=given.user_id,
        surface=given.surface,
        cold_start=made.cold,
        items=render.build_recommended_items(slate, snapshot, metadata=True),
        history=describe_history(made.requests.history, query.time - imagined, snapshot, config.events.names),
        settings=find_settings(config),
        arms=arms,
        bundles=bundles,
        relaxed=made.slates.relaxed_constraints(0, query.count),
        degraded=list(dict.fromkeys(made.slates.degraded)),
        release=release.with_rules(slate.rules),
    )


def describe_history(
    history: History, imagined_from: int, snapshot: Snapshot, names: Sequence[str]
) -> list[p.HistoryEvent]:
    """Return the events of the first request, the latest first; those since `imagined_from` (µs) are imagined."""
    real = np.flatnonzero(history.item[0] != NONE)[::-1]
    items = history.item[0, real]
    known = items < len(snapshot)
    real, items = real[known], items[known]
    rows = render.build_items(items, np.zeros(len(items)), snapshot, metadata=True)
    return [
        p.HistoryEvent(
            type=names[int(history.type[0, at])], item_id=row.item_id, time=format_time(int(history.time[0, at])),
            imagined=int(history.time[0, at]) >= imagined_from, title=_find_title(row.metadata),
        )
        for at, row in zip(real.tolist(), rows, strict=True)
    ]  # fmt: skip


def _find_title(metadata: dict[str, Any] | None) -> str | None:
    title = (metadata or {}).get("title")
    return str(title) if title else None


def format_time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
