"""A small deployment on disk: config, item snapshot, feature rows, and a live bundle with a trained ranker.

Users u0 to u19 have feature rows, that of u19 without events; all other users are new.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import xgboost

from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import save_config
from handsell.bundles.warm_up_requests import save_warm_up_requests
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.events.fold import fold
from handsell.events.states import Events, FoldRules, ItemAttributes
from handsell.features.matrix import list_features
from handsell.features.registry import find_features
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.rows import Vocabularies, build_user_rows
from handsell.features.views import USER_VIEWS, build_views
from handsell.onboarding.config import OnboardingConfig
from handsell.onboarding.question_fitting import fit_questions
from handsell.ranking.calibration import Calibration
from handsell.ranking.xgboost_ranker import XGBoostRanker
from handsell.retrieval import registry
from handsell.retrieval.content_vectors import fit_content_vectors
from handsell.retrieval.sharding.shard_catalog import save_shard_catalogs
from handsell.testing.small_catalog import draw_snapshot

ITEM_FEATURES = tuple(find_features("item"))

TOML = """
name = "shop"
[events.types]
impression = { weight = 0.0, seen = false }
play = { weight = 1.0 }
like = { weight = 2.0 }
skip = { weight = -0.5 }
[features]
history_length = 10
[surfaces.home]
repeat = "exclude"
[surfaces.similar]
repeat = "allow"
[surfaces.email]
repeat = "allow"
count = 5
[retrieval]
candidates = 60
[retrieval.als]
enabled = false
[retrieval.two_tower]
enabled = false
[retrieval.content]
enabled = false
[retrieval.item_knn]
shrinkage = 1.0
[ranking]
ranked = 40
[serving]
port = PORT
max_body_bytes = 20000
max_events = 50
feature_log_share = 1.0
micro_batch = 4
deadline_ms = 4000
"""
ITEMS, USERS = 120, 20


@dataclass(frozen=True)
class World:
    config: Config
    snapshot: Snapshot
    bundle: str
    rows: dict[str, dict]  # user_id → feature row

    def store(self) -> DictStore:
        return DictStore(self.config, self.rows)


class DictStore:
    """Feature rows from a dictionary, with the interface of handsell.features.store.FeatureStore."""

    def __init__(self, config: Config, rows: dict[str, dict]):
        self.rows, self.requested, self.broken = rows, [], False
        self.lock = contextlib.nullcontext()
        by_name = build_views(config)
        self.columns = [name for view in USER_VIEWS for name in by_name[view].names]

    def online_users(self, user_ids: Sequence[str]) -> dict[str, list]:
        self.requested.append(list(user_ids))
        if self.broken:
            raise ConnectionError("the online store is unavailable")
        return {name: [self.rows.get(u, {}).get(name) for u in user_ids] for name in self.columns}

    def write_user_rows(self, rows: dict[str, pa.Table]) -> None:
        for table in rows.values():
            for row in table.to_pylist():
                self.rows.setdefault(row["user_id"], {}).update(row)

    def forget_users(self, user_ids: Sequence[str], wait_s: float = -1) -> None:
        for user_id in user_ids:
            self.rows.pop(user_id, None)

    def check_contract(self, service: str, names: Sequence[str]) -> None:
        pass


class PromptStore(DictStore):
    """A store whose rows are in a file of this machine: they are read without a thread."""

    def online_users_at_once(self, user_ids: Sequence[str]) -> dict[str, list]:
        return self.online_users(user_ids)


def open_rows(config: Config) -> DictStore:
    """Open the store of a gateway replica in another process: the rows that `write_world` wrote beside the config."""
    return DictStore(config, json.loads((config.source.parent / "rows.json").read_text()))


def write_world(folder: Path, port: int = 18_000, with_content: bool = False, shards: int = 1) -> World:
    path = folder / "shop.toml"
    toml = TOML.replace("PORT", str(port)).replace("[retrieval]", f"[retrieval]\nshards = {shards}", 1)
    if with_content:
        toml = toml.replace("[retrieval.content]\nenabled = false", "[retrieval.content]\nembedding_size = 32")
    path.write_text(toml)
    config = load_config(path)
    rng = np.random.default_rng(11)
    now = time.time_ns() // 1000
    snapshot = draw_shop_snapshot(rng, now)
    log = draw_interactions(rng, now)
    rows = build_feature_rows(config, snapshot, log)
    (folder / "rows.json").write_text(json.dumps(rows, default=str))
    return World(config, snapshot, publish_bundle(config, snapshot, log, rows, now), rows)


def draw_shop_snapshot(rng, now: int) -> Snapshot:
    drawn = draw_snapshot(rng, ITEMS)
    values = rng.random((ITEMS, len(ITEM_FEATURES))).astype(np.float32)
    available = np.ones(ITEMS, bool)
    available[7] = False
    metadata = pa.table(
        {
            "item_id": [f"i{i}" for i in range(ITEMS)],
            "title": [f"Title {i}" for i in range(ITEMS)],
            "tags": [["red"] if i % 2 else [] for i in range(ITEMS)],
            "text": ["never shown"] * ITEMS,
            "published_at": pa.array(np.full(ITEMS, now - 30 * DAY_US)).cast(pa.timestamp("us", tz="UTC")),
        }
    )
    return replace(
        drawn, as_of=now, values=values, value_names=ITEM_FEATURES, available=available, metadata=metadata,
        published=np.minimum(drawn.published, now - DAY_US),
    )  # fmt: skip


def draw_interactions(rng, now: int, n: int = 900) -> Interactions:
    """Draw events of two groups of users, who like the lower and the upper half of the catalog."""
    user = np.sort(rng.integers(0, USERS - 1, n)).astype(np.int32)
    item = (rng.integers(0, ITEMS // 2, n) + (user % 2) * (ITEMS // 2)).astype(np.int32)
    time = np.sort(now - DAY_US - rng.integers(0, 20 * DAY_US, n))
    order = np.lexsort((time, user))
    kind = rng.choice([1, 2, 3], n, p=[0.7, 0.2, 0.1]).astype(np.int8)
    weight = np.array([0, 1, 2, -0.5], np.float32)[kind]
    return Interactions(user[order], item, kind, time[order], weight, USERS, ITEMS)


def build_feature_rows(config: Config, snapshot: Snapshot, log: Interactions) -> dict[str, dict]:
    """Build the feature rows as the features job does, by user."""
    rules = FoldRules.of(config)
    events = Events.of(log.user, log.item, log.type, log.time, log.weight)
    states = fold(rules.empty_states(USERS), events, ItemAttributes(snapshot.creator, snapshot.item_tags), rules)
    users = Vocabulary.of(f"u{i}" for i in range(USERS))
    tables = build_user_rows(
        states, np.arange(USERS), Vocabularies(users, snapshot.items, snapshot.creators, snapshot.tags), config
    )
    rows: dict[str, dict] = {f"u{i}": {"user_number": i} for i in range(USERS)}
    for table in tables.values():
        for row in table.to_pylist():
            rows[row["user_id"]].update(row)
    return rows


def publish_bundle(config: Config, snapshot: Snapshot, log: Interactions, rows: dict[str, dict], now: int) -> str:
    """Publish and promote a bundle of popularity, item kNN, a small forest and ten warm-up requests."""
    store = open_bundles(config)
    folder = store.new_dir()
    save_config(config, folder)
    snapshot.save(folder / "snapshot")
    sources = config.retrieval.enabled
    content = fit_content_vectors(snapshot, 32, before=now) if "content" in sources else None
    for name in sources:
        registry.fit(name, log, config.retrieval, content).save(folder / "retrievers" / name)
    if config.retrieval.shards > 1:
        save_shard_catalogs(snapshot, config.retrieval.shards, folder)
    names = list_features(config, sources)
    XGBoostRanker(names, train_forest(names), Calibration.logistic()).save(folder / "ranker")
    fit_questions(log, OnboardingConfig(clusters=2)).save(folder / "onboarding")
    users = DictStore(config, rows).online_users([f"u{i}" for i in range(10)])
    save_warm_up_requests(
        build_requests_from_rows(users, snapshot, config, np.full(10, now), np.zeros(10, np.int8)), folder
    )
    manifest = Manifest(
        config=config.name, created_us=now, data_start_us=now - 30 * DAY_US, data_end_us=now - DAY_US,
        feature_service="ranking_v1", features=names, sources=sources,
        shards=config.retrieval.shards,
    )  # fmt: skip
    bundle = store.publish(folder, manifest)
    store.promote(bundle)
    return bundle


def publish_other_bundle(world: World, seed: int, features: tuple[str, ...] | None = None) -> str:
    """Publish a copy of the bundle with another ranker, `seed` seconds younger, without promotion.

    `features` are the ranker's columns. Ids begin with the second, so a larger seed sorts later.
    """
    store = open_bundles(world.config)
    folder, manifest = store.new_dir(), store.show(world.bundle)
    shutil.copytree(store.local_path(world.bundle), folder, dirs_exist_ok=True)
    (folder / "manifest.json").unlink()
    names = features or manifest.features
    XGBoostRanker(names, train_forest(names, seed), Calibration.logistic()).save(folder / "ranker")
    created = manifest.created_us + seed * 1_000_000
    later = manifest.model_copy(update={"created_us": created, "features": names, "id": ""})
    return store.publish(folder, later)


def publish_empty_bundle(world: World) -> str:
    """Publish a copy of the bundle in whose catalog no item is available, without promotion."""
    store = open_bundles(world.config)
    folder, manifest = store.new_dir(), store.show(world.bundle)
    shutil.copytree(store.local_path(world.bundle), folder, dirs_exist_ok=True)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "snapshot")
    replace(world.snapshot, available=np.zeros(len(world.snapshot), bool)).save(folder / "snapshot")
    return store.publish(folder, manifest.model_copy(update={"created_us": manifest.created_us + 77, "id": ""}))


def train_forest(names: tuple[str, ...], seed: int = 3) -> xgboost.Booster:
    """Train trees that use many columns, so that a wrong column changes the order."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4_000, len(names))).astype(np.float32)
    x[:, : len(names) // 3] *= 30
    x[rng.random(x.shape) < 0.1] = np.nan
    y = np.nan_to_num(x) @ rng.normal(size=len(names))
    y /= y.std()
    data = xgboost.DMatrix(x, y, feature_names=list(names), nthread=1)
    return xgboost.train({"max_depth": 5, "nthread": 1, "eta": 0.3}, data, 30)
