"""Random feature sources in the schemas of handsell.features.views, with nulls, ties and late rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.catalog.snapshot import ALWAYS, Snapshot
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.features.views import CREATED, TIMESTAMP, View, build_views

START = 20_000 * DAY_US
DAYS = 10
END = START + DAYS * DAY_US
USERS = 60

TOML = """
name = "{name}"
[events.types]
impression = {{ weight = 0.0, seen = false }}
play = {{ weight = 1.0 }}
skip = {{ weight = -0.5 }}
[features]
history_length = 12
affinity_size = 8
item_columns = ["energy"]
user_columns = ["age"]
user_attributes = {{ country = "text", adult = "true or false", languages = "list of texts", height = "number" }}
"""


def write_config(folder: Path, name: str) -> Config:
    path = folder / f"{name}.toml"
    path.write_text(TOML.format(name=name))
    return load_config(path)


def write_sources(rng: np.random.Generator, config: Config, snapshot: Snapshot) -> dict[str, pa.Table]:
    """Write two Parquet files for each view; return the tables by view."""
    tables = {name: _table(rng, view, snapshot, config) for name, view in build_views(config).items()}
    for name, table in tables.items():
        folder = Layout(config.state).features / name
        folder.mkdir(parents=True, exist_ok=True)
        half = len(table) // 2
        pq.write_table(table.slice(0, half), folder / "part-0.parquet")
        pq.write_table(table.slice(half), folder / "part-1.parquet")
    return tables


def _table(rng: np.random.Generator, view: View, snapshot: Snapshot, config: Config) -> pa.Table:
    size = {"user": USERS, "item": len(snapshot), "creator": len(snapshot.creators), "tag": len(snapshot.tags)}
    first = size[view.entities[0]]
    number = np.concatenate([np.arange(1, first), rng.integers(1, first, 4 * first)])  # number 0 has no row
    rng.shuffle(number)
    n = len(number)
    columns: dict[str, pa.Array] = {}
    for key, entity in zip(view.keys, view.entities, strict=True):
        numbers = number if key == view.keys[0] else rng.integers(0, size[entity], n)
        columns[key] = pa.array([f"{entity[0]}{i}" for i in numbers])
    stamp = START + rng.integers(0, DAYS * 4, n) * (DAY_US // 4)  # few distinct times, hence ties within a key
    late = np.where(rng.random(n) < 0.3, rng.integers(0, 3 * DAY_US, n), 0)
    columns |= {
        TIMESTAMP: pa.array(stamp),
        CREATED: pa.array(stamp + late + np.arange(n)),
    }  # distinct, so that one row is the latest
    columns |= _values(rng, view, number, stamp, snapshot, config)
    return pa.table([columns[f.name].cast(f.type) for f in view.schema], schema=view.schema)


def _values(rng, view: View, number, stamp, snapshot: Snapshot, config: Config) -> dict[str, pa.Array]:
    n = len(number)
    if view.name == "item_profile":
        return _items(rng, view, number, snapshot)
    if view.name == "user_history":
        return _history(rng, stamp, snapshot, config)
    if view.name == "user_affinity":
        return _affinity(rng, n, snapshot, config)
    out: dict[str, pa.Array] = {}
    for name, kind in view.columns:
        if pa.types.is_list(kind):
            rows = [list(range(m)) for m in number % 7]  # the same length in all columns of a row
            text = kind.value_type == pa.string()
            out[name] = pa.array([[f"i{v}" for v in row] if text else row for row in rows], kind)
        elif kind == pa.int64():
            out[name] = pa.array(rng.integers(0, 2**50, n))
        elif kind in (pa.string(), pa.bool_()):
            values = rng.choice(["de", "en", ""] if kind == pa.string() else [True, False], n)
            out[name] = pa.array(values.tolist(), kind, mask=rng.random(n) < 0.2)
        else:
            out[name] = pa.array(rng.random(n) * 9, kind, mask=rng.random(n) < 0.2)
    return out


def _items(rng, view: View, number, snapshot: Snapshot) -> dict[str, pa.Array]:
    creator = [None if c < 0 else f"c{c}" for c in snapshot.creator[number]]
    published = snapshot.published[number]
    fixed = {
        "item": pa.array([f"i{i}" for i in number]),
        "item_number": pa.array(number),
        "creator": pa.array(creator, pa.string()),
        "tags": pa.array([[f"t{t}" for t in snapshot.item_tags.row(i)] for i in number], pa.list_(pa.string())),
        "published_us": pa.array(published, mask=published == ALWAYS),
    }
    return fixed | {name: pa.array(rng.normal(size=len(number))) for name in view.names if name not in fixed}


def _history(rng, stamp, snapshot: Snapshot, config: Config) -> dict[str, pa.Array]:
    lengths = rng.integers(0, config.features.history_length + 1, len(stamp))
    names = config.events.names[1:]
    back = [np.sort(rng.choice(30 * DAY_US // 1000, m, replace=False))[::-1] * 1000 + 1 for m in lengths]
    return {
        "history_item_ids": pa.array([[f"i{i}" for i in rng.integers(0, len(snapshot), m)] for m in lengths]),
        "history_types": pa.array([[names[i] for i in rng.integers(0, len(names), m)] for m in lengths]),
        "history_times_us": pa.array([t - ago for t, ago in zip(stamp, back, strict=True)]),
        "history_weights": pa.array([rng.normal(size=m) for m in lengths]),
    }


def _affinity(rng, n: int, snapshot: Snapshot, config: Config) -> dict[str, pa.Array]:
    out = {}
    for kind, size in (("creator", len(snapshot.creators)), ("tag", len(snapshot.tags))):
        lengths = rng.integers(0, config.features.affinity_size + 1, n)
        out[f"top_{kind}s"] = pa.array([[f"{kind[0]}{i}" for i in rng.permutation(size)[:m]] for m in lengths])
        out[f"top_{kind}_weights"] = pa.array([np.sort(rng.random(m))[::-1] for m in lengths])
    return out
