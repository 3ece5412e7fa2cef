"""The stream processor in a running service: killed under load, it is started again by Serve and no event is lost."""

from __future__ import annotations

import time

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest

from conftest import wait_until_ready
from handsell.events.store.opening import open_reader
from handsell.features.store import open_store
from handsell.features.views import build_views
from handsell.serving.http import app
from handsell.serving.http.app import AppArgs, compose
from handsell.serving.stream.deployment import StreamProcessorDeployment
from handsell.serving.stream.processor import POSITION
from handsell.serving.stream.replay_check import compare_online_with_replay
from serving_world import write_world

PORT = 18_040
LIMIT_S = 120
ROUNDS = 3
THROUGHPUT = {"RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}  # as behind HAProxy: a handle works in its loop alone

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def shop(ray_cluster, tmp_path, monkeypatch):
    """A deployment whose users have rows in Feast's SQLite store, and its HTTP client."""
    from ray import serve

    world = write_world(tmp_path, PORT)
    store = open_store(world.config)
    store.apply()
    store.write_user_rows({"user_profile": _profiles(world)})
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    actor = {"num_cpus": 0.05, "runtime_env": {"env_vars": THROUGHPUT}}
    monkeypatch.setattr(app, "StreamProcessorDeployment", StreamProcessorDeployment.options(ray_actor_options=actor))
    args = AppArgs(config=str(world.config.source), topology="fused")
    serve.run(compose(args), name="stream", route_prefix="/")
    with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=30) as client:
        wait_until_ready(client)
        yield world, client
    serve.delete("stream")
    serve.shutdown()


def _profiles(world) -> pa.Table:
    view = build_views(world.config)["user_profile"]
    now = pa.array([0] * len(world.rows), pa.timestamp("us", tz="UTC"))
    columns = {
        "user_id": list(world.rows),
        "user_number": [row["user_number"] for row in world.rows.values()],
        "event_timestamp": now,
        "created": now,
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in view.schema], schema=view.schema)


def find_processor() -> psutil.Process | None:
    """The replica of this test's own cluster."""
    for process in psutil.Process().children(recursive=True):
        if "ServeReplica:stream:StreamProcessor" in " ".join(process.cmdline()):
            return process
    return None


def wait_for(what, limit_s=LIMIT_S):
    until = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < until, "no answer in time"
        time.sleep(0.2)
    return found


def post(client, rng, n=40):
    kinds = ["play", "like", "skip", "impression"]
    body = {
        "events": [
            {
                "user_id": f"u{rng.integers(0, 30)}", "item_id": f"i{rng.integers(0, 120)}",
                "type": kinds[rng.integers(0, 4)],
            }
            for _ in range(n)
        ]
    }  # fmt: skip
    answer = client.post("/v1/events", json=body)
    assert answer.status_code == 202 and answer.json()["accepted"] == n


def test_a_killed_processor_is_started_again_and_loses_no_event(shop):
    world, client = shop
    rng = np.random.default_rng(5)
    reader, killed = open_reader(world.config), set()
    for _ in range(ROUNDS):
        process = wait_for(find_processor)
        for _ in range(5):
            post(client, rng)
        process.kill()
        killed.add(process.pid)
        for _ in range(5):
            post(client, rng)
        wait_for(lambda: (found := find_processor()) is not None and found.pid not in killed)
    last = reader.last_offset()
    wait_for(lambda: reader.read_position(POSITION) >= last)
    found = compare_online_with_replay(world.config)
    assert found.equal and found.events == ROUNDS * 400, found
    rows = open_store(world.config).online_users([f"u{i}" for i in range(30)])
    tails = reader.read_tails([f"u{i}" for i in range(30)], rows["log_offset"])
    assert tails["offset"] == []
    reader.close()
    assert len(killed) == ROUNDS


def test_the_public_lists_follow_likes(shop):
    _, client = shop
    first = client.get("/v1/popular?count=1").json()["items"][0]["item_id"]
    item = client.get("/v1/popular?count=30").json()["items"][-1]["item_id"]
    assert item != first
    for batch in range(40):
        body = {"events": [{"user_id": f"u{user}", "item_id": item, "type": "like"} for user in range(50)]}
        assert client.post("/v1/events", json=body).status_code == 202, batch
    for name in ("popular", "trending"):
        wait_for(lambda name=name: client.get(f"/v1/{name}?count=1").json()["items"][0]["item_id"] == item, 60)
