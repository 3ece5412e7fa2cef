"""The online store on a Redis server gives the same values as on SQLite."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import numpy as np
import pytest

from feast_rows import END, TOML, USERS, write_sources
from handsell.config import load_config
from handsell.core.units import DAY_US
from handsell.features.store import open_store
from handsell.testing.small_catalog import draw_snapshot
from server_programs import report_missing


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """host:port of a new Redis server on loopback, without persistence."""
    binary = shutil.which("redis-server")
    if binary is None:
        report_missing("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        server.terminate()


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
