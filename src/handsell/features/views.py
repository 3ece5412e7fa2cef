"""Definitions of all feature views (columns, keys) and of the services that combine them.

Does not import Feast: `feature_repo/` makes Feast objects of it, the features job writes the Parquet sources, and
`features/store.py` reads them. Every source also has `event_timestamp` (time from which the row is valid, UTC) and
`created`.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa

from handsell.config import Config
from handsell.data.schemas import TIME
from handsell.events.states import HALF_LIVES_DAYS
from handsell.features.registry import find_features

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
INT = pa.int64()
INTS = pa.list_(pa.int64())
FLOAT = pa.float32()
FLOATS = pa.list_(pa.float32())
DOUBLE = pa.float64()
FLAG = pa.bool_()

ATTRIBUTES = {"number": DOUBLE, "true or false": FLAG, "text": TEXT, "list of texts": TEXTS}
"""Arrow types of the kinds in `features.user_attributes`."""

# Entity name → join key; all keys are strings.
ENTITIES = {"user": "user_id", "item": "item_id", "creator": "creator_id", "tag": "tag_id"}

TIMESTAMP, CREATED = "event_timestamp", "created"

USER_VIEWS = ("user_profile", "user_activity", "user_history", "user_seen", "user_affinity")

# Service name → its views. `ranking_v1` also holds the on-demand crosses.
SERVICES = {
    "ranking_v1": (*USER_VIEWS, "item_profile", "item_activity"),
    "user_serving_v1": USER_VIEWS,
}
SERVICES_WITH_CROSSES = ("ranking_v1",)

# The on-demand view of crosses, the views that it reads, and the caller's input (the request's time).
CROSS_VIEW = "request_crosses"
CROSS_INPUTS = ("user_history", "user_affinity", "item_profile")
CROSS_REQUEST = (("request_time_us", INT),)


def to_duckdb_path(folder: Path) -> str:
    """Return the absolute folder as DuckDB reads it: a pattern, if its path has characters of patterns."""
    path, escaped = str(folder), glob.escape(str(folder))
    return path if path == escaped else f"{escaped}/*.parquet"


@dataclass(frozen=True, slots=True)
class View:
    """A feature view: `columns` are (name, Arrow type) without keys and timestamps."""

    name: str
    entities: tuple[str, ...]
    columns: tuple[tuple[str, pa.DataType], ...]
    online: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        """Join key columns."""
        return tuple(ENTITIES[entity] for entity in self.entities)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    @property
    def schema(self) -> pa.Schema:
        """Of the Parquet source: keys, columns, event_timestamp, created."""
        keys = [(key, TEXT) for key in self.keys]
        return pa.schema([*keys, *self.columns, (TIMESTAMP, TIME), (CREATED, TIME)])


@cache
def name_count_column(event_type: str) -> str:
    """Return the name of the column that counts events of a type; all but letters, digits and _ become _."""
    return "count_" + re.sub(r"\W", "_", event_type)


def build_views(config: Config) -> dict[str, View]:
    """Return every view of a deployment by name, with the item and user columns of `config.features`."""
    found = (
        View("user_profile", ("user",), _user_profile(config)),
        View("user_activity", ("user",), _user_activity(config)),
        View(
            "user_history",
            ("user",),
            (
                ("history_item_ids", TEXTS),  # oldest first, at most features.history_length
                ("history_types", TEXTS),
                ("history_times_us", INTS),
                ("history_weights", FLOATS),
            ),
        ),
        View(
            "user_seen",
            ("user",),
            (("seen_item_ids", TEXTS), ("seen_times_us", INTS), ("seen_total", INT)),
        ),
        View(
            "user_affinity",
            ("user",),
            (
                ("top_creators", TEXTS),  # the features.affinity_size strongest, highest weight first
                ("top_creator_weights", FLOATS),
                ("top_tags", TEXTS),
                ("top_tag_weights", FLOATS),
            ),
        ),
        View("user_creator", ("user", "creator"), (("user_creator_weight", DOUBLE),), online=False),
        View("user_tag", ("user", "tag"), (("user_tag_weight", DOUBLE),), online=False),
        View("item_profile", ("item",), _item_profile(config)),
        View("item_activity", ("item",), tuple((name, FLOAT) for name in find_features("item"))),
    )
    return {view.name: view for view in found}


def list_service_columns(config: Config, service: str) -> tuple[str, ...]:
    """Return every feature name that a service must offer; a bundle's manifest records them."""
    every = build_views(config)
    names = [name for view in SERVICES[service] for name in every[view].names]
    return (*names, *(n for n, _ in list_cross_columns())) if service in SERVICES_WITH_CROSSES else tuple(names)


def list_cross_columns() -> tuple[tuple[str, pa.DataType], ...]:
    """Return (name, Arrow type) of the on-demand view's columns: the cross features that are `on_demand`."""
    return tuple((name, FLOAT) for name, found in find_features("cross").items() if found.on_demand)


def _user_profile(config: Config) -> tuple[tuple[str, pa.DataType], ...]:
    numbers = ((name, FLOAT) for name in config.features.user_columns)
    attributes = ((name, ATTRIBUTES[kind]) for name, kind in config.features.user_attributes.items())
    return (("user_number", INT), *numbers, *attributes)


def _item_profile(config: Config) -> tuple[tuple[str, pa.DataType], ...]:
    # `item` repeats the key: Feast passes the columns of its sources to an on-demand view, not their keys
    fixed = (("item", TEXT), ("item_number", INT), ("creator", TEXT), ("tags", TEXTS), ("published_us", INT))
    return (*fixed, *((name, FLOAT) for name in config.features.item_columns))


def _user_activity(config: Config) -> tuple[tuple[str, pa.DataType], ...]:
    """Return counts, and sums of weights that halve every 1, 7 or 28 days, as of `state_time_us` (the last event)."""
    counts = [name_count_column(name) for name in config.events.names]
    decayed = [f"{sign}_{days}d" for sign in ("positive", "negative") for days in HALF_LIVES_DAYS]
    numbers = (*counts, *decayed, "positives_total", "negatives_total", "positive_rate", "negative_rate")
    times = (("state_time_us", INT), ("first_time_us", INT), ("log_offset", INT))
    return (*times, *((name, DOUBLE) for name in numbers))
