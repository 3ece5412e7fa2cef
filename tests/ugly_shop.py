"""A small shop with ugly data; the data and feature steps on it in this process, without Ray, Feast and a service."""

from __future__ import annotations

import bisect
import contextlib
import csv
import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.bundles.manifest import Manifest
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config, load_config
from handsell.core.failures import Failures
from handsell.core.paths import Layout
from handsell.core.units import DAY_US, HOUR_US
from handsell.events.store.opening import open_reader
from handsell.features.item import SnapshotValues
from handsell.features.matrix import build_matrix, list_features
from handsell.features.request_builder import QueryBatch, build_requests
from handsell.features.served_log import LoggedVectors
from handsell.features.storage.online_rows import OnlineRows
from handsell.features.views import TIMESTAMP, USER_VIEWS, build_views
from handsell.jobs.features import feature_tables
from handsell.jobs.features.recomputation import without_sources
from handsell.jobs.ingest import ingest

TOML = """
name = "shop"
[data]
format = "tables"
[data.tables.events]
path = "events.csv"
[data.tables.items]
path = "items.csv"
[events.types]
view = { weight = 1.0 }
cart = { weight = 2.0 }
purchase = { weight = 4.0 }
impression = { weight = 0.0, seen = false }
dislike = { weight = -1.0 }
[features]
history_length = 15
seen_cap = 30
affinity_size = 4
item_columns = ["price"]
[serving]
clock = "CLOCK"
[split]
ranker_days = 6
validation_days = 2
test_days = 2
[jobs]
partitions = 2
"""
TYPES = ("view",) * 6 + ("cart", "purchase", "impression", "dislike")
ITEMS, USERS = 40, 25
FORMS = ("iso", "offset", "epoch_ms")
FUTURE_US = 4_070_908_800_000_000  # 2099-01-01


@dataclass(frozen=True)
class Shop:
    """A shop whose log was read at `now`."""

    config: Config
    now: int  # µs, wall time of the data step
    meta: dict

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot.load(Layout(self.config.state).snapshot)

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            config="shop", created_us=self.now + 90_000_000, data_start_us=self.meta["first_us"],
            data_end_us=self.meta["last_us"] + 1, feature_service="ranking_v1", features=(), sources=(),
        )  # fmt: skip

    @property
    def store(self) -> FileStore:
        return FileStore(self.config)


def write_shop(
    folder: Path,
    rng: np.random.Generator,
    end: int,
    robot: int,
    clock: str = "data",
    form: str = "iso",
    future: int = 1,
) -> None:
    """Write events that end at `end` µs, items and config.

    Ugly are: a robot with `robot` events, a user of the day after the windows, an item without a row in the items
    table, one that expired, duplicate lines, events that share a time, and `future` events in the year 2099.
    """
    events = []
    for user in range(USERS):
        for _ in range(rng.integers(1, 40)):
            at = end - int(rng.integers(0, 45 * DAY_US))
            events.append([f"u{user}", f"i{rng.integers(0, ITEMS)}", at, rng.choice(TYPES)])
    robot_time = end - rng.integers(0, 2 * DAY_US, robot) // 10_000_000 * 10_000_000  # several events share a time
    events += [["robot", f"i{i % ITEMS}", int(at), TYPES[i % 6]] for i, at in enumerate(robot_time)]
    events += [["newcomer", "i3", end - 60_000_000 * n, "view"] for n in range(1, 4)]
    events += [["u1", "deleted", end - n * 5 * HOUR_US, "purchase"] for n in range(1, 9)]
    events += [list(events[n]) for n in rng.integers(0, len(events), 30)]
    events += [["u0", "i1", end, "view"]]
    events += [["u2", "i2", FUTURE_US, "purchase"]] * future
    rng.shuffle(events)
    with (folder / "events.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user_id", "item_id", "time", "type"])
        out.writerows([user, item, write_time(int(at), form), kind] for user, item, at, kind in events)
    with (folder / "items.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["item_id", "title", "creators", "tags", "price", "expires_at"])
        for i in range(ITEMS):
            expires = write_time(end - 3 * DAY_US, "iso") if i == 5 else ""
            out.writerow([f"i{i}", f"Thing {i}", f"Brand {i % 5}", f"t{i % 3}|t{i % 7}", i * 1.5 or "", expires])
    (folder / "shop.toml").write_text(TOML.replace("CLOCK", clock))


def write_time(at: int, form: str = "iso") -> str:
    if form == "epoch_ms":
        return str(at // 1_000)
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30)) if form == "offset" else dt.UTC
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=at)).astimezone(zone).isoformat()


def read_shop(folder: Path, now: int) -> Shop:
    """Run the data and the feature steps, with the wall clock at `now`."""
    config = load_config(folder / "shop.toml")
    with pytest.MonkeyPatch.context() as patch:
        for module in (ingest, feature_tables):
            patch.setattr(module, "open_cluster", lambda *_: contextlib.nullcontext())
            patch.setattr(module, "run_tasks", lambda do, arguments, **_: [do(*one) for one in arguments])
        patch.setattr(ingest, "Clock", lambda: SimpleNamespace(now=lambda: now))
        ingest.prepare(config, lambda text: None)
        feature_tables.compute_feature_tables(config)
    return Shop(config, now, json.loads(Layout(config.state).data_meta.read_text()))


class FileStore:
    """Point-in-time rows from the Parquet files that Feast joins, with the interface of the feature store."""

    def __init__(self, config: Config):
        self.views, self.config, self._rows = build_views(config), config, {}

    def historical_users(self, user_ids, times) -> dict[str, pa.Array]:
        return self._join(USER_VIEWS, user_ids, times)

    def historical_items(self, item_ids, times) -> dict[str, pa.Array]:
        return self._join(("item_profile", "item_activity"), item_ids, times)

    def online_users(self, user_ids) -> dict[str, list]:
        """Return each user's newest row, as materialization copies it; `now` of the store is the time of serving."""
        found = self.historical_users(user_ids, [self.now] * len(user_ids))
        return {name: column.to_pylist() for name, column in found.items()}

    def at(self, now: int) -> FileStore:
        self.now = now
        return self

    def _join(self, names, ids, times) -> dict[str, pa.Array]:
        found = {}
        for name in names:
            table, rows = self._load(name)
            place = []
            for key, time in zip(ids, np.asarray(times).tolist(), strict=True):
                stamps, numbers = rows.get(key, ((), ()))
                after = bisect.bisect_right(stamps, time)
                place.append(numbers[after - 1] if after else None)
            joined = table.take(pa.array(place, pa.int64()))
            found |= {column: joined[column].combine_chunks() for column in self.views[name].names}
        return found

    def _load(self, name: str):
        if name not in self._rows:
            table = pq.read_table(Layout(self.config.state).features / name).combine_chunks()
            keys, stamps = table[self.views[name].keys[0]].to_pylist(), table[TIMESTAMP].cast(pa.int64()).to_pylist()
            rows: dict[str, tuple[list, list]] = {}
            for row in sorted(range(len(keys)), key=stamps.__getitem__):
                at, numbers = rows.setdefault(keys[row], ([], []))
                at.append(stamps[row])
                numbers.append(row)
            self._rows[name] = table, rows
        return self._rows[name]


def serve(shop: Shop, time: int, users: list[str | None]) -> LoggedVectors:
    """Return the vectors of every item for each user at `time` by the service clock, as a replica logs them."""
    snapshot, config = shop.snapshot, shop.config
    store = shop.store.at(shop.now + 60_000_000)
    queries = QueryBatch.of(users, np.full(len(users), time), np.zeros(len(users), np.int8))
    rows = OnlineRows(store, config).read(users)
    reader = open_reader(config)
    requests = build_requests(queries, rows, reader, snapshot, config, Failures(strict=True)).requests
    items = np.tile(np.arange(len(snapshot), dtype=np.int32), (len(users), 1))
    x = build_matrix(requests, without_sources(items, ("popularity",)), SnapshotValues(snapshot), snapshot, config)
    row = np.repeat(np.arange(len(users)), len(snapshot))
    return LoggedVectors(
        recommendation_id=[f"answer-{b}" for b in row.tolist()],
        user_id=[users[b] for b in row.tolist()],
        item_id=snapshot.items.ids(items.ravel()),
        time=np.full(len(row), time),
        surface=np.zeros(len(row), np.int8),
        newest=requests.history.time.max(axis=1, initial=0)[row],
        bundle=["bundle"] * len(row),
        names=list_features(config, ("popularity",)),
        vectors=x.reshape(len(row), -1),
    )
