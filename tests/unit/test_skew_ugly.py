"""Served vectors against recomputed ones on shops with ugly data: no feature differs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from handsell.catalog.snapshot import Snapshot
from handsell.core.clock import Clock
from handsell.core.errors import DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US, HOUR_US
from handsell.features.matrix import group_features
from handsell.features.served_log import LoggedVectors
from handsell.jobs.features import recomputation
from handsell.jobs.features.skew import compare_vectors
from ugly_shop import FORMS, FUTURE_US, Shop, read_shop, serve, write_shop, write_time

MIDNIGHT = 20_600 * DAY_US  # 2026-05-27
USERS = ["u0", "u1", "u2", "u7", "robot", "newcomer", "unknown", None]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))


def find_differences(shop: Shop, time: int, monkeypatch) -> dict[str, float]:
    """Serve requests and return the share of differing vectors by feature, of those that differ."""
    return compare(shop, serve(shop, time, USERS), shop.snapshot, monkeypatch)


def compare(shop: Shop, logged: LoggedVectors, served: Snapshot, monkeypatch) -> dict[str, float]:
    """Compare vectors that were served with the snapshot `served` with the rows that the shop has now."""
    monkeypatch.setattr(recomputation, "load_snapshot", lambda path: served)
    monkeypatch.setattr(recomputation, "open_bundles", lambda config: SimpleNamespace(local_path=lambda name: None))
    again = recomputation.recompute(logged, shop.config, shop.store)
    assert not again.fresh.any()
    groups = group_features(shop.config, ("popularity",))
    found = compare_vectors(logged.names, groups, logged.vectors, again)
    assert len(found) == len(logged.names) - len(groups["source"])
    return {d.feature: d.share for d in found if d.differing}


def first_request(shop: Shop) -> int:
    """Return the time of a request right after the bundle was built, by the service clock."""
    return shop.manifest.created_us - Clock.of(shop.config.serving.clock, shop.manifest).offset_us


@pytest.mark.parametrize("clock", ["wall", "data"])
def test_a_small_shop_with_a_robot_a_deleted_item_and_an_event_in_the_future(tmp_path, rng, monkeypatch, clock):
    end = MIDNIGHT + 15 * HOUR_US
    write_shop(tmp_path, rng, end, robot=20_000, clock=clock)
    shop = read_shop(tmp_path, end + HOUR_US)
    assert first_request(shop) == shop.manifest.created_us
    assert shop.meta["events"] > 19_000 and shop.meta["future"] == 1
    assert find_differences(shop, first_request(shop), monkeypatch) == {}


@pytest.mark.parametrize("seed", range(6))
def test_no_feature_differs_on_random_shops(tmp_path, monkeypatch, seed):
    """The log ends at any time of a day; it is read at once or later; requests follow at once or days later."""
    rng = np.random.default_rng(seed)
    end = MIDNIGHT + int(rng.choice([0, DAY_US - 1, rng.integers(DAY_US)]))
    robot = int(rng.integers(0, 400))
    write_shop(tmp_path, rng, end, robot, clock=str(rng.choice(["wall", "data"])), form=FORMS[seed % len(FORMS)])
    read = end + int(rng.choice([0, rng.integers(DAY_US), rng.integers(200 * DAY_US)]))
    shop = read_shop(tmp_path, read)
    assert end - 1_000 < shop.meta["last_us"] < end + robot + 10  # events at the same time are set 1 µs apart
    for later in (0, rng.integers(DAY_US), rng.integers(9 * DAY_US)):
        assert find_differences(shop, first_request(shop) + int(later), monkeypatch) == {}


def test_vectors_of_yesterday_agree_with_the_rows_of_today(tmp_path, rng, monkeypatch):
    """The log goes on after the requests: the rest of the day must not change what was served on it."""
    end = MIDNIGHT + 15 * HOUR_US
    write_shop(tmp_path, rng, end, robot=100, clock="wall")
    shop = read_shop(tmp_path, end + HOUR_US)
    logged, snapshot = serve(shop, first_request(shop), USERS), shop.snapshot
    with (tmp_path / "events.csv").open("a") as file:
        times = end + 4 * HOUR_US + rng.integers(0, 20 * HOUR_US, 300)
        file.writelines(f"u{n % 30},i{n % 40},{write_time(int(at))},view\n" for n, at in enumerate(times))
    today = read_shop(tmp_path, end + DAY_US)
    assert today.meta["events"] > shop.meta["events"] and today.snapshot.as_of == snapshot.as_of + DAY_US
    assert compare(today, logged, snapshot, monkeypatch) == {}


@pytest.mark.parametrize(
    ("clock", "read"), [("wall", 3 * HOUR_US), ("wall", 40 * DAY_US), ("data", 0), ("data", 20 * HOUR_US)]
)
def test_an_event_in_the_future_decides_neither_the_end_of_the_data_nor_the_day_of_the_snapshot(tmp_path, clock, read):
    end, found = MIDNIGHT + 15 * HOUR_US, []
    for future in (0, 1):
        folder = tmp_path / f"{future}"
        folder.mkdir()
        write_shop(folder, np.random.default_rng(1), end, robot=50, clock=clock, future=future)
        shop = read_shop(folder, end + read)
        assert shop.meta["future"] == future
        about = {name: shop.meta[name] for name in ("events", "users", "items", "first_us", "last_us")}
        found.append((about, shop.snapshot.as_of, first_request(shop), np.array(shop.snapshot.values).tobytes()))
    assert found[0] == found[1]


def test_many_events_in_the_future_are_refused_with_the_cause(tmp_path, rng):
    write_shop(tmp_path, rng, MIDNIGHT, robot=0, future=200)
    with pytest.raises(DataError, match=r"200 of [\d,]+ events are in the future: .* time zone"):
        read_shop(tmp_path, MIDNIGHT)
    read_shop(tmp_path, FUTURE_US)


@pytest.mark.parametrize(("read", "day"), [(0, 0), (8 * HOUR_US, 0), (9 * HOUR_US, 1), (33 * HOUR_US, 1)])
def test_a_day_counts_when_it_was_over_at_the_time_of_the_data_step(tmp_path, rng, read, day):
    """The log ends at 15:00; training never sees a part of a day in the item values."""
    end = MIDNIGHT + 15 * HOUR_US
    write_shop(tmp_path, rng, end, robot=0)
    shop = read_shop(tmp_path, end + read)
    assert shop.snapshot.as_of == MIDNIGHT + day * DAY_US
    assert first_request(shop) >= max(shop.snapshot.as_of, end)
    meta = json.loads(Layout(shop.config.state).data_meta.read_text())
    assert meta["read_us"] == end + read
