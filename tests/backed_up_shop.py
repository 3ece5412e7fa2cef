"""A deployment with every part that a backup holds, and the means to compare and damage it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.paths import Layout
from handsell.events.compaction import compact
from handsell.events.store.interface import CatalogChange
from handsell.events.store.opening import open_reader, open_writer
from handsell.events.table_keys import save_table_keys
from handsell.maintenance.sqlite_tables import SqliteSnapshot
from handsell.maintenance.store_tables import TABLES


def build_event(n: int, user: str = "u1") -> dict:
    return {
        "event_id": f"e{n}",
        "user_id": user,
        "item_id": f"i{n}",
        "type": "click",
        "time": 1_700_000_000_000_000 + n,
    }


def build_slate(n: int) -> dict:
    items = '{"item_id":["a","b"],"score":[0.5,0.4],"propensity":[1,1],"sources":[["x"],[]]}'
    return {
        "recommendation_id": f"r{n}", "gateway": "g", "sequence": n, "time": 1_700_000_000_000_000 + n, "user_id": "u1",
        "surface": "home", "bundle": "b1", "items": items,
    }  # fmt: skip


def publish_bundle(store: BundleStore, number: int) -> str:
    staging = store.new_dir()
    (staging / "ranker").mkdir()
    (staging / "ranker" / "ranker.ubj").write_bytes(bytes([number]) * 100)
    manifest = Manifest(
        config="shop", created_us=1_750_000_000_000_000 + number * 1_000_000, data_start_us=1, data_end_us=2,
        feature_service="ranking_v1", features=(), sources=(),
    )  # fmt: skip
    return store.publish(staging, manifest)


def write_shop(folder: Path, events: int = 30) -> Config:
    """Write a deployment with events, slates, changes, a merged visitor, two promoted bundles and online features."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shop.toml"
    path.write_text('name = "shop"\n')
    config = load_config(path)
    layout = Layout(config.state)
    with closing(open_writer(config)) as log:
        log.append([build_event(n) for n in range(events)]).result()
        log.append([build_event(events, "visitor")]).result()
        log.append_slates([build_slate(n) for n in range(1, 6)]).result()
        log.append_changes([CatalogChange("item", "new", "put", {"title": "Neu, größer"}, 5)]).result()
        log.put_blocks("u1", ["c1"], []).result()
        log.merge_identity("visitor", "u1", 7).result()
        log.save_position("processor", 12).result()
    compact(config, lambda _: None)
    with closing(open_writer(config)) as log:
        log.trim("events", 10).result()
    store = open_bundles(config)
    for n in (1, 2, 3):
        store.promote(publish_bundle(store, n))
    Vocabulary.of(["a", "b"]).save(layout.catalog / "items")
    save_table_keys(layout.event_keys, 0, np.arange(5))
    layout.feast.mkdir()
    (layout.feast / "registry.db").write_bytes(b"registry")
    with closing(sqlite3.connect(layout.feast / "online.db")) as online:
        online.execute("PRAGMA journal_mode=WAL")
        online.execute("CREATE TABLE rows (id TEXT, value BLOB)")
        online.execute("INSERT INTO rows VALUES ('u1', 'x')")
        online.commit()
    return config


def read_tables(config: Config) -> dict[str, list[tuple]]:
    """Return all rows of the store in SQLite by table."""
    with closing(SqliteSnapshot(Layout(config.state).event_log)) as snapshot:
        found = {}
        for table in TABLES:
            columns = sorted(snapshot.list_columns(table), key=lambda column: column.name)
            found[table] = sorted((row for rows in snapshot.read_rows(table, columns) for row in rows), key=repr)
        return found


def read_event_ids(config: Config) -> list[str]:
    with closing(open_reader(config)) as reader:
        return reader.scan(limit=100_000)["event_id"]


def flip_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)
