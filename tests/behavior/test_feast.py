"""The feature store against a brute-force as-of join, stock Feast calls, and the cross features of the funnel."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from feast_rows import DAYS, END, START, USERS, write_config, write_sources
from handsell.core.errors import FeatureError
from handsell.core.units import DAY_US
from handsell.features.crosses import compute_crosses
from handsell.features.registry import find_features
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.store import ITEM_VIEWS, ONLINE_VIEWS, USER_SERVICE, open_store
from handsell.features.views import CREATED, CROSS_VIEW, TIMESTAMP, USER_VIEWS, list_cross_columns, list_service_columns
from handsell.testing.small_catalog import draw_snapshot

CROSSES = tuple(find_features("cross"))


@pytest.fixture(scope="module")
def shelf():
    return draw_snapshot(np.random.default_rng(1), items=80)


@pytest.fixture(scope="module")
def shop(tmp_path_factory, shelf):
    """A store with registered views and source tables, before materialization."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HANDSELL_HOME", raising=False)
        config = write_config(tmp_path_factory.mktemp("shop"), "shop")
        tables = write_sources(np.random.default_rng(2), config, shelf)
        store = open_store(config)
        store.apply()
    return store, tables


@pytest.fixture(scope="module")
def online(shop):
    store, tables = shop
    store.materialize(END + 100 * DAY_US)
    return store, tables


def cell(value):
    """Convert a cell to plain data: NaN becomes null, arrays become lists."""
    value = value.as_py() if isinstance(value, pa.Scalar) else value
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else pytest.approx(float(value), rel=1e-6)
    return [cell(v) for v in value] if isinstance(value, list | np.ndarray) else value


def cells(column) -> list:
    return [cell(value) for value in column]


def as_of(table: pa.Table, key: str, time: int) -> dict | None:
    """Return the latest row of a key that was stamped and created by then; of equal stamps, the last created."""
    stamps, created = (table.column(name).cast(pa.int64()).to_pylist() for name in (TIMESTAMP, CREATED))
    ids = table.column(0).to_pylist()
    rows = [r for r in range(len(ids)) if ids[r] == key and stamps[r] <= time and created[r] <= time]
    return table.slice(max(rows, key=lambda r: (stamps[r], created[r])), 1).to_pylist()[0] if rows else None


def assert_as_of(found, tables, views, keys, times):
    assert {len(column) for column in found.values()} == {len(keys)}
    missing = 0
    for name in views:
        for row, (key, time) in enumerate(zip(keys, times, strict=True)):
            expected = as_of(tables[name], key, int(time))
            missing += expected is None
            for column in tables[name].column_names[1:-2]:
                value = cell(found[column][row])
                assert value == (cell(expected[column]) if expected else None), (name, column, key, int(time))
    assert 0 < missing < len(views) * len(keys)  # rows before any value are kept, as nulls


def test_apply_registers_under_the_name_and_the_state_of_the_config(shop):
    store, _ = shop
    assert [project.name for project in store.feast.registry.list_projects()] == ["shop"]
    assert {view.name for view in store.feast.list_feature_views()} == set(store.views)
    assert {path.name for path in (store.config.state / "feast").glob("*.db")} == {"registry.db", "online.db"}


@pytest.mark.parametrize("chunk", [7, 20_000])
def test_historical_users_equal_brute_force_as_of(shop, rng, monkeypatch, chunk):
    store, tables = shop
    monkeypatch.setattr("handsell.features.store.CHUNK", chunk)
    keys = [f"u{i}" for i in rng.integers(0, USERS, 60)] + ["nobody", "u3", "u3"]
    exact = tables["user_history"].column(TIMESTAMP)[0].cast(pa.int64()).as_py()
    times = np.append(START - DAY_US + rng.integers(0, (DAYS + 2) * DAY_US, 60), [END, exact, exact])  # repeated keys
    assert_as_of(store.historical_users(keys, times), tables, USER_VIEWS, keys, times)


def test_historical_items_equal_brute_force_as_of(shop, rng):
    store, tables = shop
    keys = [f"i{i}" for i in rng.integers(0, 80, 60)]
    days = START + rng.integers(-1, DAYS + 1, 60) * DAY_US
    assert_as_of(store.historical_items(keys, days), tables, ITEM_VIEWS, keys, days)


def test_no_requests_give_no_rows(shop):
    store, _ = shop
    found = store.historical_users([], np.zeros(0, np.int64))
    assert set(found) == set(list_service_columns(store.config, USER_SERVICE))
    assert {len(column) for column in found.values()} == {0}


def test_online_value_is_the_historical_value_at_the_same_time(online):
    store, _ = online
    users = [f"u{i}" for i in range(USERS)] + ["nobody"]
    served = store.online_users(users)
    joined = store.historical_users(users, np.full(len(users), END + 100 * DAY_US))
    assert set(served) == set(joined)
    for name, column in joined.items():
        assert cells(served[name]) == cells(column), name
    assert served["user_number"][0] is None and served["user_number"][-1] is None


def test_materialize_writes_what_feast_materialize_writes(online):
    store, _ = online
    every = {"user_id": [f"u{i}" for i in range(USERS)]}, {"item_id": [f"i{i}" for i in range(80)]}
    names = [[f"{view}:{c}" for view in views for c in store.views[view].names] for views in (USER_VIEWS, ITEM_VIEWS)]

    def read():
        pairs = zip(names, every, strict=True)
        return [store.feast.get_online_features(features=f, entity_rows=rows).to_dict() for f, rows in pairs]

    ours, tables = read(), [store.feast.get_feature_view(name) for name in ONLINE_VIEWS]
    for dropped, made in ((tables, []), ([], tables)):
        store.feast.provider.online_store.update(store.feast.config, dropped, made, [], [], False)
    assert set(store.online_users(["u1"])["user_number"]) == {None}
    start, end = (datetime.fromtimestamp(t / 1e6, UTC) for t in (START - DAY_US, END + 100 * DAY_US))
    store.feast.materialize(start, end, feature_views=list(ONLINE_VIEWS))
    for stock, own in zip(read(), ours, strict=True):
        for name, column in own.items():
            assert cells(stock[name]) == cells(column), name


def test_on_demand_crosses_equal_those_of_the_funnel(online, shelf, rng):
    store, _ = online
    users, items = rng.integers(0, USERS, 1_000), rng.integers(1, 80, 1_000)
    times = END + rng.integers(0, 5 * DAY_US, 1_000)
    rows = {
        "user_id": [f"u{i}" for i in users],
        "item_id": [f"i{i}" for i in items],
        "request_time_us": times.tolist(),
    }
    names = [name for name, _ in list_cross_columns()]
    answer = store.feast.get_online_features(features=[f"{CROSS_VIEW}:{n}" for n in names], entity_rows=rows).to_dict()
    stock = np.array([answer[name] for name in names], np.float64).T
    requests = build_requests_from_rows(
        store.online_users(rows["user_id"]), shelf, store.config, time=times, surface=np.zeros(1_000, np.int8)
    )
    funnel = compute_crosses(requests, items[:, None].astype(np.int32), shelf)[:, 0, [CROSSES.index(n) for n in names]]
    np.testing.assert_allclose(stock, funnel, rtol=1e-6, atol=1e-6)
    assert (np.nan_to_num(funnel) != 0).any(axis=0).all()  # every cross says something


def test_a_row_written_with_stock_feast_is_served(online):
    store, tables = online
    frame = tables["user_affinity"].slice(0, 1).to_pandas()
    frame["top_creators"], frame["top_creator_weights"] = [["c9", "c8"]], [[3.5, 1.0]]
    store.feast.write_to_online_store("user_affinity", df=frame)
    served = store.online_users([frame["user_id"][0], "u0"])
    assert served["top_creators"] == [["c9", "c8"], None]
    assert served["top_creator_weights"][0] == [3.5, 1.0]


def test_written_user_rows_replace_those_online(online):
    store, tables = online
    table = tables["user_seen"].slice(0, 1)
    user = table.column("user_id")[0].as_py()
    changed = table.set_column(1, "seen_item_ids", pa.array([["i5"]])).set_column(2, "seen_times_us", pa.array([[7]]))
    store.write_user_rows({"user_seen": changed})
    assert store.online_users([user])["seen_item_ids"] == [["i5"]]
    assert store.online_users([user])["seen_times_us"] == [[7]]


def test_a_store_whose_file_was_missing_is_read_again_later(online):
    """A gateway that starts meanwhile creates an empty file and must not keep it open."""
    store, _ = online
    path, asked = store.layout.feast / "online.db", ["u0", "u1", "u2"]
    here = open_store(store.config)
    found = here.online_users(asked)
    here.feast.provider.online_store._conn.close()
    away = [file.replace(file.with_name(f"{file.name}.away")) for file in path.parent.glob("online.db*")]
    late = open_store(store.config)
    try:
        for _ in range(2):
            with pytest.raises(FeatureError, match="online store of shop: no such table"):
                late.online_users(asked)
    finally:
        for file in away:
            file.replace(file.with_name(file.name.removesuffix(".away")))
    assert late.online_users(asked) == found


def test_a_feature_missing_in_the_service_is_named(online):
    store, _ = online
    for service in ("ranking_v1", USER_SERVICE):
        store.check_contract(service, list_service_columns(store.config, service))
    with pytest.raises(FeatureError, match=r"missing: item_moon_phase\).*feast -c feature_repo apply"):
        store.check_contract("ranking_v1", [*list_service_columns(store.config, "ranking_v1"), "item_moon_phase"])
    with pytest.raises(FeatureError, match="no service ranking_v9"):
        store.check_contract("ranking_v9", [])


def test_a_view_without_files_is_named(tmp_path):
    store = open_store(write_config(tmp_path, "empty"))
    with pytest.raises(FeatureError, match=r"view user_profile has no Parquet file in .*run handsell features"):
        store.historical_users(["u1"], np.array([END]))
    with pytest.raises(FeatureError, match="run handsell features"):
        store.materialize()


def test_a_store_without_apply_is_reported(tmp_path, shelf, rng):
    config = write_config(tmp_path, "fresh")
    write_sources(rng, config, shelf)
    for call in (
        lambda s: s.online_users(["u1"]),
        lambda s: s.historical_users(["u1"], np.array([END])),
        lambda s: s.materialize(),
        lambda s: s.check_contract(USER_SERVICE, ["user_number"]),
    ):
        with pytest.raises(FeatureError, match="feast -c feature_repo apply"):
            call(open_store(config))


def test_a_source_that_lacks_a_column_is_named(tmp_path, shelf, rng):
    config = write_config(tmp_path, "older")
    write_sources(rng, config, shelf)
    newer = config.model_copy(update={"features": config.features.model_copy(update={"user_columns": ("age", "iq")})})
    with pytest.raises(FeatureError, match="lacks columns iq: run handsell features"):
        open_store(newer).historical_users(["u1"], np.array([END]))
