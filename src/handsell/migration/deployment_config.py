"""Write the config of an imported deployment, with event weights and windows that fit the data."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from handsell.core.errors import DataError
from handsell.core.units import DAY_US
from handsell.migration.event_table import EventTable
from handsell.migration.tables import ImportTables

SHOWN = ("impression", "impressions", "shown", "exposure", "expose")
READ = ("read", "seen", "open", "opened")
WEIGHTS: Mapping[str, float] = {
    "view": 1.0, "click": 1.0, "pv": 1.0, "detail": 1.0, "watch": 1.0, "play": 1.0, "listen": 1.0, "visit": 1.0,
    "like": 2.0, "star": 2.0, "favorite": 2.0, "fav": 2.0, "save": 2.0, "bookmark": 2.0, "share": 2.0, "follow": 2.0,
    "cart": 2.0, "addtocart": 2.0, "basket": 2.0, "purchase": 4.0, "buy": 4.0, "order": 4.0, "transaction": 4.0,
    "skip": -0.5, "dislike": -2.0, "unlike": -2.0, "hide": -2.0, "report": -2.0, "return": -2.0, "remove": -1.0,
    "removefromcart": -1.0,
}  # fmt: skip
UNKNOWN_WEIGHT = 1.0
FEW_EVENTS = 200  # in a window of time: with fewer, the last events of each user are a better test
OLD_DAYS = 14
RATINGS: Mapping[float, str] = {  # by the highest rating
    5: "[[1, -1.0], [3, 0.5], [4, 1.0]]",
    10: "[[1, -1.0], [5, 0.5], [8, 1.0]]",
}


def write_config(tables: ImportTables, name: str, weights: Mapping[str, float], switches: Sequence[str] = ()) -> Path:
    """Write NAME.toml beside the tables; `weights` replace those that a type's name suggests."""
    if unknown := [kind for kind in weights if kind not in tables.events.types]:
        known = ", ".join(tables.events.types)
        raise DataError(f"--weight {unknown[0]}=…: expected a type of the events ({known}), got {unknown[0]}")
    path = tables.folder / f"{name}.toml"
    path.write_text("\n".join(_build_lines(tables, name, weights, switches)) + "\n", encoding="utf-8")
    return path


def name_deployment(folder: Path) -> str:
    """Return the name of a deployment from that of its folder."""
    name = re.sub(r"[^a-z0-9_]+", "_", folder.name.casefold()).strip("_")[:31]
    return name if re.match(r"[a-z]", name) else f"shop_{name}"[:31].rstrip("_")


def _build_lines(tables: ImportTables, name: str, weights: Mapping[str, float], switches: Sequence[str]) -> list[str]:
    events = tables.events
    lines = [
        f'name = "{name}"', "[data]", 'format = "tables"', *_describe_deleted(tables),
        "[data.tables.events]", 'path = "events.parquet"',
        *(line for kind in tables.schemas for line in (f"[data.tables.{kind}]", f'path = "{kind}.parquet"')),
        "", "# weight > 0: liked; < 0: disliked; 0: no preference. seen = false: not an interaction (docs/own-data.md)",
        "[events.types]",
    ]  # fmt: skip
    lines += [f"{_quote(kind)} = {_describe_type(kind, weights, events)}" for kind in events.types]
    lines += ["", *_describe_split(events), *_describe_serving(events, switches)]
    numbers = _list_numbers(tables)
    if any(numbers.values()):
        lines += ["", "# numbers that may become features of the ranker:", "# [features]"]
        lines += [f"# {kind}_columns = [{', '.join(map(_quote, names))}]" for kind, names in numbers.items() if names]
    return lines


def _describe_deleted(tables: ImportTables) -> list[str]:
    """Recommend items without a row where most items with events have none: nobody has deleted them."""
    if "items" not in tables.schemas:
        return []
    paths = [str(tables.folder / f"{kind}.parquet") for kind in ("events", "items")]
    with duckdb.connect(config={"threads": 1}) as database:
        found = database.execute(
            "SELECT count(*), count(i.item_id) FROM (SELECT DISTINCT item_id FROM read_parquet(?)) e "
            "LEFT JOIN read_parquet(?) i ON e.item_id = i.item_id", paths,
        ).fetchone()  # fmt: skip
    assert found is not None
    all_items, described = found
    if 2 * described >= all_items:
        return []
    tables.tally.notes.append(
        f"{all_items - described:,} of {all_items:,} items with events have no row among the items: they are "
        "recommended all the same (data.recommend_deleted_items)"
    )
    return ["recommend_deleted_items = true"]


def _describe_type(kind: str, weights: Mapping[str, float], events: EventTable) -> str:
    plain = re.sub(r"[^a-z]", "", kind.casefold())
    if kind in weights:
        return f"{{ weight = {weights[kind]} }}"
    if plain in SHOWN:
        return "{ weight = 0.0, seen = false }"
    if plain in READ:
        return "{ weight = 0.0 }"
    if plain == "rating" and (most := events.most.get(kind, 0)) in RATINGS:
        return f"{{ weight_by_value = {RATINGS[most]} }}"
    return f"{{ weight = {WEIGHTS.get(plain, UNKNOWN_WEIGHT)} }}"


def _describe_split(events: EventTable) -> list[str]:
    """Cut windows at fixed times where each has events enough, else by the last events of each user."""
    last = max(events.days)
    window = [sum(n for day, n in events.days.items() if last - high < day <= last - low)
              for low, high in ((0, 3), (3, 6), (6, 12))]  # fmt: skip
    earlier = sum(n for day, n in events.days.items() if day <= last - 12)
    if min(*window, earlier) >= FEW_EVENTS:
        return ["[split]", 'kind = "by_time"']
    return ["[split]", 'kind = "leave_last_k"', "ranker_k = 1", "validation_k = 1", "test_k = 1"]


def _describe_serving(events: EventTable, switches: Sequence[str]) -> list[str]:
    lines = [*switches]
    if time.time_ns() // 1_000 - events.last_us > OLD_DAYS * DAY_US:
        lines.append('clock = "data" # the log ended long ago; remove this line when events arrive')
    return ["", "[serving]", *lines] if lines else []


def _list_numbers(tables: ImportTables) -> dict[str, list[str]]:
    canonical = ("published_at", "expires_at", "available")
    return {
        kind.removesuffix("s"): [
            field.name for field in schema
            if (pa.types.is_integer(field.type) or pa.types.is_floating(field.type)) and field.name not in canonical
        ]
        for kind, schema in tables.schemas.items()
    }  # fmt: skip


def _quote(text: str) -> str:
    """Return a TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
