"""What a deployment logs of simulated visits: slates and events, as rows of the event store."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import numpy as np

from handsell.data.world.tables import format_item_ids, format_user_ids
from handsell.simulation.behavior import Responses
from handsell.simulation.organic import OrganicListens
from handsell.simulation.policies import SimulatedSlates
from handsell.simulation.visits import Visits

SURFACE = "home"
GATEWAY = "simulation"
REACTIONS = ("liked", "saved", "shared")
TYPE_OF = {"liked": "like", "saved": "save", "shared": "share"}
AFTER_US = 2_000_000  # a like follows the listen by this much


def name_slates(visits: Visits) -> list[str]:
    """Return a recommendation id for each visit."""
    columns = zip(visits.user.tolist(), visits.day.tolist(), visits.turn.tolist(), strict=True)
    return [f"sim-{user}-{day}-{turn}" for user, day, turn in columns]


def build_slate_rows(visits: Visits, shown: SimulatedSlates, bundle: str, first: int) -> list[dict[str, Any]]:
    """Return a row of SLATE_FIELDS for each visit; `first` is the sequence number of the first."""
    users, times = format_user_ids(visits.user), visits.time.tolist()
    rows = []
    for b, name in enumerate(name_slates(visits)):
        item = shown.item[b][shown.item[b] >= 0]
        kept = len(item)
        score = [None] * kept if shown.score is None else shown.score[b, :kept].tolist()
        items = {
            "item_id": format_item_ids(item),
            "score": score,
            "propensity": shown.propensity[b, :kept].tolist(),
            "sources": [[]] * kept,
        }
        rows.append(
            {
                "recommendation_id": name, "gateway": GATEWAY, "sequence": first + b, "time": times[b],
                "user_id": users[b], "surface": SURFACE, "bundle": bundle, "items": json.dumps(items),
            }
        )  # fmt: skip
    return rows


def build_event_rows(
    visits: Visits, responses: Responses, names: list[str], types: Collection[str]
) -> list[dict[str, Any]]:
    """Return rows of EVENT_FIELDS of those types, with the recommendation ids `names` (B) of the slates."""
    kinds = {"listen": responses.listened, "skip": responses.skipped}
    kinds |= {TYPE_OF[reaction]: getattr(responses, reaction) for reaction in REACTIONS}
    users, rows = format_user_ids(visits.user), []
    for step, (kind, where) in enumerate(kinds.items()):
        if kind not in types:
            continue
        has_value = kind in ("listen", "skip")
        row, place = np.nonzero(where)
        items = format_item_ids(responses.item[row, place])
        times = responses.time[row, place] + (0 if has_value else AFTER_US + step)
        columns = zip(row.tolist(), place.tolist(), items, times.tolist(), strict=True)
        rows += [
            {
                "event_id": f"{names[b]}-{p}-{kind}", "user_id": users[b], "item_id": item, "type": kind, "time": time,
                "sent_time": time, "value": float(responses.part[b, p]) if has_value else None, "surface": SURFACE,
                "recommendation_id": names[b], "position": p + 1, "propensity": None,
            }
            for b, p, item, time in columns
        ]  # fmt: skip
    return sorted(rows, key=lambda event: event["time"])


def build_organic_rows(
    visits: Visits, organic: OrganicListens, names: list[str], types: Collection[str]
) -> list[dict[str, Any]]:
    """Return rows of EVENT_FIELDS of those types for what was played without a recommendation."""
    users, rows = format_user_ids(visits.user), []
    kinds = {"listen": organic.item >= 0, "like": organic.liked, "save": organic.saved}
    for step, (kind, where) in enumerate(kinds.items()):
        if kind not in types:
            continue
        row, place = np.nonzero(where)
        items, times = format_item_ids(organic.item[row, place]), (organic.time[row, place] + step * AFTER_US).tolist()
        for b, m, item, time in zip(row.tolist(), place.tolist(), items, times, strict=True):
            rows.append(
                {
                    "event_id": f"{names[b]}-o{m}-{kind}", "user_id": users[b], "item_id": item, "type": kind,
                    "time": time, "sent_time": time, "value": float(organic.part[b, m]) if kind == "listen" else None,
                    "surface": "library" if organic.known[b, m] else "search", "recommendation_id": None,
                    "position": None, "propensity": None,
                }
            )  # fmt: skip
    return rows
