"""The online store on a Redis server gives the same values as on SQLite."""

from __future__ import annotations

import numpy as np
import pytest
import redis.retry as redis_retry
from redis import RedisError

from feast_rows import END, TOML, USERS, write_sources
from handsell.config import load_config
from handsell.core.units import DAY_US
from handsell.features.store import open_store
from handsell.testing.small_catalog import draw_snapshot
from redis_server import RedisServer


@pytest.fixture(scope="module")
def redis():
    """host:port of a new Redis server on loopback."""
    server = RedisServer()
    try:
        server.start()
        yield server.address
    finally:
        server.remove()


def test_redis_and_sqlite_give_the_same_rows(redis, tmp_path, monkeypatch):
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    shelf = draw_snapshot(np.random.default_rng(1), items=40)
    path, rows = tmp_path / "shop.toml", {}
    for name, line in (("kept", ""), ("shared", f'online_store = "{redis}"')):
        path.write_text(TOML.format(name="shop") + line + "\n")
        config = load_config(path)
        store = open_store(config)
        if name == "kept":
            write_sources(np.random.default_rng(2), config, shelf)
            store.apply()  # a process that imports Feast; the registry does not depend on the online store
        store.materialize(END + 100 * DAY_US)
        rows[name] = store.online_users([f"u{u}" for u in range(USERS)] + ["nobody"])
    assert rows["kept"].keys() == rows["shared"].keys()
    known = 0
    for column, values in rows["kept"].items():
        for ours, theirs in zip(values, rows["shared"][column], strict=True):
            assert str(ours) == str(theirs), column
            known += ours is not None
    assert known > USERS


def test_a_redis_that_is_away_is_noticed_without_a_pause(tmp_path, monkeypatch):
    """A request does not wait for it, and no thread is held."""
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    monkeypatch.setattr(redis_retry, "sleep", lambda seconds: pytest.fail(f"waited {seconds} s"))
    server, path = RedisServer(), tmp_path / "shop.toml"
    try:
        server.start()
        path.write_text(TOML.format(name="shop") + f'online_store = "{server.address}"\n')
        store = open_store(load_config(path))
        store.apply()
        assert store.online_users(["u1"])["log_offset"] == [None]
        server.kill()
        with pytest.raises(RedisError):
            store.online_users(["u1"])
        server.start()
        assert store.online_users(["u1"])["log_offset"] == [None]
    finally:
        server.remove()
