"""Rows of users are written and read without Feast's conversion, byte for byte as Feast does."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from test_feast_redis import redis  # noqa: F401

from feast_rows import TOML, write_sources
from handsell.config import load_config
from handsell.features.feast_import import feast
from handsell.features.store import open_store
from handsell.features.views import USER_VIEWS
from handsell.testing.small_catalog import draw_snapshot


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request, tmp_path_factory):
    """One store per engine: registering takes seconds."""
    path = tmp_path_factory.mktemp("shop") / "shop.toml"
    online = request.getfixturevalue("redis") if request.param == "redis" else "sqlite"
    path.write_text(TOML.format(name=f"s{uuid4().hex[:20]}") + f'online_store = "{online}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HANDSELL_HOME", raising=False)
        store = open_store(load_config(path))
    write_sources(np.random.default_rng(2), store.config, draw_snapshot(np.random.default_rng(1), items=40))
    store.apply()
    return store


@pytest.fixture(scope="module")
def tables(store):
    """One random row per user in every view, with nulls, NaN and lists of all lengths, also in parts of arrays."""
    rng, found = np.random.default_rng(3), {}
    drawn = write_sources(rng, store.config, draw_snapshot(rng, items=400))
    for name in USER_VIEWS:
        table = drawn[name].slice(1)
        _, first = np.unique(table["user_id"].to_numpy(zero_copy_only=False), return_index=True)
        table = table.take(pa.array(np.sort(first)))
        for place, field in enumerate(table.schema):
            column = table[field.name].combine_chunks()
            if field.type in (pa.float32(), pa.float64()):
                column = pa.array([np.nan, -0.0, *column.to_pylist()[2:]], field.type)
            elif pa.types.is_list(field.type):
                column = pa.concat_arrays([column.slice(0, 5), pa.nulls(1, field.type), column.slice(6)])
            elif field.type == pa.int64():
                column = pa.array([-1, 2**62, *column.to_pylist()[2:]], field.type)
            table = table.set_column(place, field, column)
        found[name] = table
    return found


def dump(store):
    """Return everything that the engine holds of the user views."""
    online, config = store.feast.provider.online_store, store.feast.config
    if hasattr(online, "_client"):
        client = online._get_client(config.online_store)
        return {key: client.hgetall(key) for key in client.scan_iter(f"*{config.project}")}
    connection = online._get_conn(config)
    return {
        name: sorted(map(repr, connection.execute(f'SELECT * FROM "{config.project}_{name}"').fetchall()))
        for name in USER_VIEWS
    }


def test_the_bytes_are_those_of_feast(store, tables):
    for name, table in tables.items():
        view = store._feast_view(name)
        types = {field.name: field.dtype.to_value_type() for field in view.entity_columns}
        rows = feast.utils._convert_arrow_to_proto(table.combine_chunks().to_batches()[0], view, types)
        store.feast.provider.online_store.online_write_batch(store.feast.config, view, rows, None)
    theirs = dump(store)
    store.forget_users(tables["user_seen"]["user_id"].to_pylist())
    assert dump(store) != theirs
    store.write_user_rows(
        {name: pa.concat_tables([table.slice(0, 9), table.slice(9)]) for name, table in tables.items()}
    )
    assert dump(store) == theirs
    store.write_user_rows(tables)  # over themselves
    assert dump(store) == theirs


def test_what_is_read_is_what_feast_reads(store, tables):
    store.write_user_rows(tables)
    users = [*tables["user_seen"]["user_id"].to_pylist(), "u3", "nobody"]
    names = [f"{view}:{column}" for view in USER_VIEWS for column in store.views[view].names]
    rows = [{"user_id": user} for user in users]
    theirs = store.feast.get_online_features(features=names, entity_rows=rows).to_dict()
    ours = store.online_users(users)
    assert set(ours) == set(theirs) - {"user_id"}
    for name, cells in ours.items():
        assert str(cells) == str(theirs[name]), name
    assert all(cells[-1] is None for cells in ours.values())
