"""A small random catalog, config and numbered log on disk, as `handsell data` writes them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.data.interactions import NUMBERED, Interactions
from handsell.data.schemas import ITEMS

TOML = """
name = "tiny"
[events.types]
impression = { weight = 0.0, seen = false }
listen = { weight = 1.0 }
skip = { weight = -0.5 }
[features]
history_length = 6
seen_cap = 12
affinity_size = 3
item_columns = ["energy"]
user_columns = ["age"]
user_attributes = { country = "text", adult = "true or false", languages = "list of texts" }
[split]
kind = "KIND"
ranker_days = 6
validation_days = 3
test_days = 3
ranker_k = 4
validation_k = 2
test_k = 2
[jobs]
partitions = 2
"""
START = 20_000 * DAY_US
PEOPLE = pa.schema(
    [("user_id", pa.string()), ("age", pa.int32()), ("country", pa.string()), ("adult", pa.bool_()),
     ("languages", pa.list_(pa.string()))]
)  # fmt: skip


def write_tiny_config(folder: Path, kind: str = "by_time") -> Config:
    path = folder / "tiny.toml"
    path.write_text(TOML.replace("KIND", kind))
    return load_config(path)


def write_tiny(
    config: Config, rng: np.random.Generator, users: int = 12, items: int = 30, n: int = 1500
) -> Interactions:
    """Write catalog, item and user tables, meta and numbered parts under config.state; return the log."""
    layout = Layout(config.state)
    layout.catalog.mkdir(parents=True)
    ids = {
        name: [f"{name[0]}{i}" for i in range(count)]
        for name, count in (("items", items), ("users", users), ("creators", 5), ("tags", 6))
    }
    for name, values in ids.items():
        Vocabulary.of(values).save(layout.catalog / name)
    _write_tables(layout, rng, ids)
    log = _draw_log(config, rng, users, items, n)
    layout.interactions.mkdir()
    for p in range(config.jobs.partitions):
        part = log.where(log.user % config.jobs.partitions == p)
        rows = {f: getattr(part, f) for f in ("user", "item", "type", "time", "weight")}
        empty = {f.name: pa.nulls(len(part), f.type) for f in NUMBERED if f.name not in rows}
        pq.write_table(pa.table({**rows, **empty}, schema=NUMBERED), layout.interactions / f"part-{p:05d}.parquet")
    meta = {
        "events": len(log),
        "users": users,
        "items": items,
        "first_us": int(log.time.min()),
        "last_us": int(log.time.max()),
        "ordered": True,
    }
    layout.data_meta.write_text(json.dumps(meta))
    return log


def _draw_log(config: Config, rng: np.random.Generator, users: int, items: int, n: int) -> Interactions:
    """Draw bursts of events over 40 days; the last user has none."""
    user = rng.integers(0, users - 1, n).astype(np.int32)
    time = START + rng.integers(0, 40 * 24, n) * (DAY_US // 24) + rng.integers(0, 600_000_000, n)
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    time += np.arange(n)  # strictly increasing within a user
    kind = rng.integers(0, 3, n).astype(np.int8)
    weight = np.array([config.events.types[name].weight for name in config.events.names], np.float32)[kind]
    return Interactions(user, rng.integers(0, items, n).astype(np.int32), kind, time, weight, users, items)


def _write_tables(layout: Layout, rng: np.random.Generator, ids: dict[str, list[str]]) -> None:
    n = len(ids["items"])
    order = rng.permutation(n)  # the table is not in the order of the catalog
    published = pa.array(START - rng.integers(0, 100, n) * DAY_US, pa.int64(), mask=rng.random(n) < 0.2)
    columns = {
        "item_id": [ids["items"][i] for i in order],
        "title": [f"title {i}" for i in order],
        "creators": [list(rng.choice(ids["creators"], rng.integers(0, 3), replace=False)) for _ in order],
        "tags": [list(rng.choice(ids["tags"], rng.integers(0, 4))) for _ in order],
        "text": [None] * n,
        "published_at": published.cast(ITEMS.field("published_at").type),
        "expires_at": [None] * n,
        "available": [None] * n,
        "energy": rng.random(n).astype(np.float32),
    }
    pq.write_table(pa.table(columns, schema=ITEMS.append(pa.field("energy", pa.float32()))), _with_parent(layout.items))
    age = rng.integers(10, 80, len(ids["users"]))
    people = {
        "user_id": ids["users"],
        "age": pa.array(age, pa.int32()),
        "country": pa.array(rng.choice(["de", "fr"], len(age)), mask=age < 20),
        "adult": pa.array(age >= 18),
        "languages": [["de", "en"] if a > 40 else [] for a in age],
    }
    pq.write_table(pa.table(people).cast(PEOPLE), layout.users)


def _with_parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
