"""The synthetic world: the same bytes from the same config, canonical tables, no hidden parameters in the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.core.errors import ConfigError, DataError
from handsell.data.config import WorldConfig
from handsell.data.schemas import EVENTS, ITEMS, USERS
from handsell.data.world import build_items_table, build_users_table, n_partitions, write_partition
from handsell.data.world.catalog import build_catalog, get_log_span
from handsell.data.world.oracle import Oracle

SMALL = WorldConfig(users=130, items=300, artists=40, tags=12, days=12, users_per_partition=50)


def written(world: WorldConfig, folder: Path, partitions: list[int]) -> dict[str, bytes]:
    build_catalog.cache_clear()
    for partition in partitions:
        write_partition(world, partition, folder / "events", folder / "truth")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    written(SMALL, folder, list(range(n_partitions(SMALL))))
    return folder


def events_of(folder: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder / "events")
    arrays = {c: table[c].to_numpy(zero_copy_only=False) for c in table.column_names if c != "time"}
    return arrays | {"time": table["time"].cast(pa.int64()).to_numpy()}


def test_the_same_seed_gives_the_same_bytes_in_any_order_of_partitions(tmp_path: Path, small: Path) -> None:
    forward = written(SMALL, tmp_path / "a", [0, 1, 2])
    backward = written(SMALL, tmp_path / "b", [2, 0, 1, 0])
    assert forward == backward
    assert len(forward) == 2 * n_partitions(SMALL) + 2  # parts, users, catalog, world.json
    other = written(SMALL.model_copy(update={"seed": 8}), tmp_path / "c", [0])
    assert other["events/part-00000.parquet"] != forward["events/part-00000.parquet"]


def test_a_partition_does_not_depend_on_other_partitions(tmp_path: Path, small: Path) -> None:
    alone = written(SMALL, tmp_path, [1])
    assert alone["events/part-00001.parquet"] == (small / "events/part-00001.parquet").read_bytes()
    assert alone["truth/users-00001.npz"] == (small / "truth/users-00001.npz").read_bytes()


def test_tables_keep_the_canonical_schemas() -> None:
    items, users = build_items_table(SMALL), build_users_table(SMALL)
    assert [items.schema.field(f.name) for f in ITEMS] == list(ITEMS)
    assert [users.schema.field(f.name) for f in USERS] == list(USERS)
    assert items.column_names[len(ITEMS) :] == ["energy", "acousticness", "tempo", "year", "explicit"]
    assert (len(items), len(users)) == (SMALL.items, SMALL.users)
    assert len(set(items["item_id"].to_pylist())) == SMALL.items
    assert {len(t) for t in items["tags"].to_pylist()} <= {1, 2, 3, 4}
    assert len({c[0] for c in items["creators"].to_pylist()}) == SMALL.artists
    assert items.equals(build_items_table(SMALL))


def test_events_are_canonical_sorted_and_refer_to_existing_items_and_users(small: Path) -> None:
    for path in sorted((small / "events").iterdir()):
        assert pq.read_schema(path).equals(EVENTS)
        assert (np.diff(pq.read_table(path)["time"].cast(pa.int64()).to_numpy()) >= 0).all()
    e = events_of(small)
    assert len(set(e["event_id"])) == len(e["event_id"])
    items, users = build_items_table(SMALL), build_users_table(SMALL)
    published = dict(zip(items["item_id"].to_pylist(), items["published_at"].cast(pa.int64()).to_pylist(), strict=True))
    joined = dict(zip(users["user_id"].to_pylist(), users["joined_at"].cast(pa.int64()).to_pylist(), strict=True))
    assert (e["time"] >= [published[i] for i in e["item_id"]]).all()
    assert (e["time"] >= [joined[u] for u in e["user_id"]]).all()
    start, end = get_log_span(SMALL)
    assert start <= e["time"].min() and e["time"].max() < end


def test_a_users_times_are_strictly_increasing_and_sessions_are_apart(small: Path) -> None:
    e = events_of(small)
    order = np.lexsort((e["time"], e["user_id"]))
    same = e["user_id"][order][1:] == e["user_id"][order][:-1]
    gap = np.diff(e["time"][order])[same]
    assert gap.min() > 0
    minutes = gap / 60e6
    assert not ((minutes > 15) & (minutes < 40)).any()  # so that any usual session gap finds the same sessions


def test_events_after_an_impression_have_its_slate_and_position(small: Path) -> None:
    e = events_of(small)
    shown = e["type"] == "impression"
    place = {
        (r, p): (u, i)
        for r, p, u, i in zip(
            *(e[c][shown] for c in ("recommendation_id", "position", "user_id", "item_id")), strict=True
        )
    }
    assert len(place) == shown.sum()
    follow = ~shown & (e["surface"] == "home")
    assert follow.sum() > 100
    for r, p, u, i in zip(
        *(e[c][follow] for c in ("recommendation_id", "position", "user_id", "item_id")), strict=True
    ):
        assert place[r, p] == (u, i)
    elsewhere = np.isin(e["surface"].astype(str), ["search", "library"])
    assert (elsewhere | (e["surface"] == "home")).all()
    assert {*e["recommendation_id"][elsewhere]} == {None}
    assert set(e["position"][shown].astype(int)) == set(range(1, SMALL.slate + 1))
    chance = e["propensity"][shown].astype(float)
    assert (chance > 0).all() and (chance <= 1).all()
    assert np.isnan(e["propensity"][~shown].astype(float)).all()


def test_events_do_not_depend_on_the_truth_folder_and_do_not_contain_it(tmp_path: Path, small: Path) -> None:
    write_partition(SMALL, 0, tmp_path / "e", tmp_path / "elsewhere")
    assert (tmp_path / "e/part-00000.parquet").read_bytes() == (small / "events/part-00000.parquet").read_bytes()
    hidden = {"vector", "weight", "taste", "taste_end", "share", "energy_pull", "loyalty", "novelty"}
    seen = {*EVENTS.names, *build_items_table(SMALL).column_names, *build_users_table(SMALL).column_names}
    assert not hidden & seen
    assert not [p for p in (small / "events").iterdir() if p.suffix != ".parquet"]


@pytest.mark.parametrize(
    "sizes",
    [
        {"users": 2, "items": 2, "artists": 1, "tags": 2},
        {"users": 3, "items": 5, "artists": 9, "tags": 60, "users_per_partition": 1},
        {"organic_share": 0.0},
        {"organic_share": 1.0},
        {"slate": 1},
        {"sessions_per_user_week": 1e-6},
        {"end": "2026-03-05T13:37:11+02:00"},
    ],
)
def test_odd_worlds_are_written_and_read_back(sizes: dict, tmp_path: Path) -> None:
    world = WorldConfig(**({"users": 20, "items": 60, "artists": 8, "tags": 5, "days": 3} | sizes))
    counts = [write_partition(world, p, tmp_path / "events", tmp_path / "truth") for p in range(n_partitions(world))]
    table = pq.read_table(tmp_path / "events")
    assert table.num_rows == sum(c["events"] for c in counts)
    assert sum(c["users"] for c in counts) == world.users == len(build_users_table(world))
    oracle = Oracle.load(tmp_path / "truth")
    none = np.full((2, 3), -1)
    value = oracle.true_utility(np.arange(2), np.repeat(get_log_span(world)[1], 2), none, np.zeros((2, 3), np.int64))
    assert value.shape == (2, world.items) and np.isfinite(value).all()
    assert len(build_items_table(world)) == world.items


def test_errors_name_the_cause(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="partition"):
        write_partition(SMALL, 99, tmp_path, tmp_path)
    with pytest.raises(ConfigError, match=r"world\.end"):
        build_items_table(SMALL.model_copy(update={"end": "next Tuesday"}))
    with pytest.raises(DataError, match="truth"):
        Oracle.load(tmp_path)
    written(SMALL, tmp_path, [0])
    with pytest.raises(DataError, match="130 users"):
        Oracle.load(tmp_path / "truth")


def test_the_oracle_agrees_with_itself_on_all_and_on_selected_items(small: Path) -> None:
    oracle = Oracle.load(small / "truth")
    rng = np.random.default_rng(0)
    start, end = get_log_span(SMALL)
    user, time = rng.integers(SMALL.users, size=7), rng.integers(start, end, 7)
    heard, when = rng.integers(-1, 60, (7, 12)), time[:, None] - rng.integers(1, 10**12, (7, 12))
    whole = oracle.true_utility(user, time, heard, when)
    some = np.where(rng.random((7, 20)) < 0.1, -1, rng.integers(SMALL.items, size=(7, 20)))
    part = oracle.true_utility(user, time, heard, when, some)
    expected = np.where(some < 0, -np.inf, np.take_along_axis(whole, np.maximum(some, 0), axis=1))
    np.testing.assert_allclose(part, expected, rtol=1e-5)
    released = build_catalog(SMALL).published[None, :] <= time[:, None]
    assert (np.isfinite(whole) == released).all()
    assert (oracle.expected_listens(user, time, heard, when) > 0).sum() <= released.sum()
    # a listen at or after the asked time changes nothing
    later = np.concatenate([when, np.repeat(time[:, None], 1, axis=1)], axis=1)
    more = np.concatenate([heard, np.zeros((7, 1), int)], axis=1)
    assert np.array_equal(oracle.true_utility(user, time, more, later), whole)
    with pytest.raises(DataError, match="t0000300"):
        oracle.item_numbers(["t0000000", "t0000300"])
    assert oracle.user_numbers(["u0000002"]).tolist() == [2]
    assert oracle.find_items(["t0000001", "fresh-song", "t0000300", "t-1"]).tolist() == [1, -1, -1, -1]
    assert oracle.find_users(["newcomer", "u0000002"]).tolist() == [-1, 2]
