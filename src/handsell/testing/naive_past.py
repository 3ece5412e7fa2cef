"""Features of users and items, computed from the interactions by plain loops.

Shares no code with `handsell.features` and `handsell.events`: no fold, no feature store, no arrays.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.data.interaction_parts import list_parts, read_part

DAY_US = 86_400_000_000
HALF_LIVES_DAYS = (1, 7, 28)


@dataclass(frozen=True)
class NaiveEvent:
    item: int
    type: str
    time: int  # µs
    weight: float


@dataclass
class NaiveCatalog:
    """Items by item number, and events by user id; the number of an id is its row in the table."""

    config: Config
    item_ids: list[str]
    creator: list[str]
    tags: list[list[str]]
    published: list[int]
    columns: dict[str, list[float]]
    log: dict[str, list[NaiveEvent]]
    activity: list[dict[str, float]] = field(default_factory=list)


def read_catalog(config: Config) -> NaiveCatalog:
    """Read the tables that `handsell data` wrote."""
    layout = Layout(config.state)
    items, users = pq.read_table(layout.items), pq.read_table(layout.users)["user_id"].to_pylist()
    if items["expires_at"].null_count + items["available"].null_count < 2 * len(items):
        raise ValueError("expected a catalog without expires_at and available: the reference has no availability")
    log: dict[str, list[NaiveEvent]] = defaultdict(list)
    tables = [read_part(part) for part in list_parts(layout.interactions)]
    for row in pa.concat_tables(tables).select(["user", "item", "type", "time", "weight"]).to_pylist():
        kind = config.events.names[row["type"]]
        log[users[row["user"]]].append(NaiveEvent(row["item"], kind, row["time"], row["weight"]))
    catalog = NaiveCatalog(
        config,
        items["item_id"].to_pylist(),
        [creators[0] for creators in items["creators"].to_pylist()],
        items["tags"].to_pylist(),
        items["published_at"].cast("int64").to_pylist(),
        {name: items[name].to_pylist() for name in config.features.item_columns},
        log,
    )
    catalog.activity = count_activity(catalog)
    return catalog


def count_activity(catalog: NaiveCatalog) -> list[dict[str, float]]:
    """Return the activity features of every item on the day after the last event."""
    events = [event for log in catalog.log.values() for event in log]
    today = max(event.time for event in events) // DAY_US + 1
    found = []
    by_item = defaultdict(list)
    for event in events:
        if event.type != "impression":
            by_item[event.item].append(event)
    for item in range(len(catalog.item_ids)):
        mine = [(today - event.time // DAY_US, event.weight > 0) for event in by_item[item]]
        p1, p7, p28 = (sum(liked for age, liked in mine if age <= days) for days in (1, 7, 28))
        touched = sum(age <= 28 for age, _ in mine)
        found.append(
            {
                "item_positives_1d": p1,
                "item_positives_7d": p7,
                "item_positives_28d": p28,
                "item_events_28d": touched,
                "item_positive_rate_28d": p28 / touched if touched else math.nan,
                "item_trend": math.log((p7 + 1) / (p28 / 4 + 1)),
                "item_positives_total": sum(liked for _, liked in mine),
            }
        )
    return found


class NaiveUser:
    """One user's events before `time` (µs), those of the request's session included."""

    def __init__(self, catalog: NaiveCatalog, events: list[NaiveEvent], time: int):
        self.catalog, self.time = catalog, time
        self.events = sorted((e for e in events if e.time < time), key=lambda e: e.time)
        self.acted = [e for e in self.events if e.type != "impression"]
        self.history = self.acted[-catalog.config.features.history_length :]
        self.seen = {e.item: e.time for e in self.acted}

    def sum_decayed(self, sign: int, days: float) -> float:
        """Sum the weights of one sign, halved every `days` before the user's last event."""
        rated = [e for e in self.events if e.weight * sign > 0]
        return sum(abs(e.weight) * 2 ** (-(self.events[-1].time - e.time) / (days * DAY_US)) for e in rated)

    def sum_affinity(self, keys_of: Callable[[int], list[str]]) -> dict[str, float]:
        """Sum the event weights by key (creator or tag), decayed to the user's last event."""
        out: dict[str, float] = defaultdict(float)
        last = self.events[-1].time if self.events else 0
        half_life = self.catalog.config.features.affinity_half_life_days * DAY_US
        for event in self.events:
            for key in keys_of(event.item) if event.weight else ():
                out[key] += event.weight * 2 ** (-(last - event.time) / half_life)
        return out

    def compute_user_features(self) -> dict[str, float]:
        likes, dislikes = sum(e.weight > 0 for e in self.events), sum(e.weight < 0 for e in self.events)
        rated, history = likes + dislikes, self.history
        out = {f"user_positive_{d}d": self.sum_decayed(1, d) for d in HALF_LIVES_DAYS}
        out |= {f"user_negative_{d}d": self.sum_decayed(-1, d) for d in HALF_LIVES_DAYS}
        out |= {
            "user_log_positives": math.log1p(likes),
            "user_log_negatives": math.log1p(dislikes),
            "user_positive_rate": likes / rated if rated else math.nan,
            "user_negative_rate": dislikes / rated if rated else math.nan,
            "user_trend": math.log((out["user_positive_1d"] + 0.1) / (out["user_positive_28d"] + 1)),
            "user_active_days": (self.events[-1].time - self.events[0].time) / DAY_US if self.events else math.nan,
            "user_days_since_last": min((self.time - self.events[-1].time) / DAY_US, 90) if self.events else math.nan,
            "user_history_length": len(history),
            "user_log_seen": math.log1p(len(self.seen)),
            "user_mean_gap_hours": math.nan,
        }
        if len(history) > 1:
            stretch = (history[-1].time - history[0].time) / (DAY_US / 24)
            out["user_mean_gap_hours"] = stretch / (len(history) - 1)
        for name in self.catalog.config.events.names:
            out[f"user_log_count_{name}"] = math.log1p(sum(e.type == name for e in self.events))
        return out

    def compute_item_features(self, item: int) -> dict[str, float]:
        columns = {f"item_{name}": values[item] for name, values in self.catalog.columns.items()}
        return self.catalog.activity[item] | columns

    def compute_crosses(self, item: int) -> dict[str, float]:
        catalog, history = self.catalog, self.history
        tags, creator = catalog.tags[item], catalog.creator[item]
        creators = self.sum_affinity(lambda i: [catalog.creator[i]])
        by_tag = self.sum_affinity(lambda i: catalog.tags[i])
        same = [e for e in history if e.item == item]
        related = [e for e in history if catalog.creator[e.item] == creator]
        return {
            "creator_affinity": creators.get(creator, 0.0),
            "tag_affinity": sum(by_tag.get(tag, 0.0) for tag in tags) / len(tags) if tags else 0.0,
            "times_in_history": len(same),
            "hours_since_item": self._count_hours_since(same),
            "history_place": self._count_items_since(item),
            "hours_since_creator": self._count_hours_since(related),
            "creator_share": len(related) / max(len(history), 1),
            "last_item_similarity": cosine(catalog.tags[history[-1].item], tags) if history else 0.0,
            "item_age_days": (self.time - catalog.published[item]) / DAY_US,
        }

    def _count_items_since(self, item: int) -> float:
        """Return how many distinct items the user has had since this one; NaN if the history does not have it."""
        latest = list(dict.fromkeys(event.item for event in reversed(self.history)))
        return latest.index(item) if item in latest else math.nan

    def _count_hours_since(self, events: list[NaiveEvent]) -> float:
        return min((self.time - events[-1].time) / (DAY_US / 24), 90 * 24) if events else math.nan

    def compute_context(self, surface: str) -> dict[str, float]:
        hour, week = (2 * math.pi * (self.time / unit % 1) for unit in (DAY_US, 7 * DAY_US))
        return {
            "hour_sin": math.sin(hour),
            "hour_cos": math.cos(hour),
            "weekday_sin": math.sin(week),
            "weekday_cos": math.cos(week),
            "surface": list(self.catalog.config.surfaces).index(surface),
        }


def cosine(a: list[str], b: list[str]) -> float:
    return len(set(a) & set(b)) / math.sqrt(len(a) * len(b)) if a and b else 0.0


def weigh_history(user: NaiveUser, half_life_days: float) -> dict[int, np.float32]:
    """Sum the weights of the history's rated events by item, halved every half_life_days before the newest event."""
    rated = [e for e in user.history if e.weight]
    out: dict[int, np.float32] = {}
    for e in rated:
        age = (rated[-1].time - e.time) / (half_life_days * DAY_US)
        out[e.item] = np.float32(out.get(e.item, np.float32(0)) + np.float32(e.weight * 2**-age))
    return dict(sorted(out.items()))
