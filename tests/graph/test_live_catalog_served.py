"""Catalog changes over HTTP on two gateways and two replicas of the candidate stage, each with its own reader."""

import time

import httpx
import pytest

import serving_world
from conftest import wait_until_ready
from handsell.bundles.store import BundleStore
from handsell.core.paths import Layout
from serving_world import open_rows, publish_other_bundle, write_world

pytestmark = pytest.mark.slow  # a service with several replicas, restarted and promoted

IN_A_ROW = 16  # requests that must agree: they go to the replicas in turns
NEW, NAMED = "new item", "item.title == 'Brand new'"


@pytest.fixture(scope="module")
def world(tmp_path_factory, port):
    return write_world(tmp_path_factory.mktemp("live"), port, with_content=True)


@pytest.fixture(scope="module")
def start(ray_cluster, world, port):
    """Function that starts the application, or starts it again, and returns its HTTP client."""
    from ray import cloudpickle, serve

    from handsell.serving.graph import deployments
    from handsell.serving.http import app

    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(http_options={"host": "127.0.0.1", "port": port})

    def run() -> httpx.Client:
        serve.delete("live")
        with pytest.MonkeyPatch.context() as patch:
            two = {"num_replicas": 2}
            patch.setitem(app.STAGE_DEPLOYMENTS, "candidates", deployments.CandidatesDeployment.options(**two))
            patch.setattr(app, "Gateway", app.Gateway.options(**two))
            made = app.compose(app.AppArgs(config=str(world.config.source)), open_rows)
        serve.run(made, name="live", route_prefix="/live")
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}/live", timeout=30)
        wait_until_ready(client)
        return client

    yield run
    serve.shutdown()


def find(client, text, liked="i20", count=30):
    """The items that pass a filter, for a visitor who liked one item."""
    session = {"events": [{"type": "like", "item_id": liked}]}
    body = {"user_id": "visitor", "surface": "email", "count": count, "session": session, "filter": text}
    answer = client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200 and answer.json()["degraded"] == [], answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def wait_for(holds, limit_s=30.0) -> float:
    """Return the seconds until the condition has held for IN_A_ROW requests."""
    began = since = time.monotonic()
    row = 0
    while row < IN_A_ROW:
        assert time.monotonic() < began + limit_s, "the change does not hold on all replicas"
        row = row + 1 if holds() else 0
        since = since if row else time.monotonic()
    return since - began


def test_changes_hold_on_all_replicas_and_survive_restart_and_promotion(start, world, capsys):
    client = start()
    row = world.snapshot.metadata.slice(20, 1).to_pylist()[0]
    body = {"title": "Brand new", "tags": row["tags"], "text": row["text"], "published_at": "2024-01-01T00:00:00Z"}
    assert client.put("/v1/items/new%20item", json=body).status_code in (200, 201)
    seconds = {"new item": wait_for(lambda: find(client, NAMED) == [NEW])}
    assert client.patch("/v1/items/new%20item", json={"available": False}).status_code == 200
    seconds["unavailable"] = wait_for(lambda: find(client, NAMED) == [])
    assert client.patch("/v1/items/new%20item", json={"available": True}).status_code == 200
    seconds["available"] = wait_for(lambda: find(client, NAMED) == [NEW])
    gone = find(client, None)[0]
    assert client.delete(f"/v1/items/{gone}").status_code in (200, 204)
    everything = "item.item_id != ''"
    seconds["deleted"] = wait_for(lambda: gone not in find(client, everything))
    with capsys.disabled():
        print({name: round(value, 2) for name, value in seconds.items()})

    client = start()
    for _ in range(IN_A_ROW):
        assert gone not in find(client, everything) and find(client, NAMED) == [NEW]

    other = publish_other_bundle(world, seed=5)
    BundleStore(Layout(world.config.state).bundles).promote(other)
    until, bundles = time.monotonic() + 60, []
    while bundles[-IN_A_ROW:] != [other] * IN_A_ROW:
        assert time.monotonic() < until
        answer = client.get("/v1/popular", params={"count": 30}).json()
        bundles.append(answer["release"]["bundle"])
        assert gone not in [item["item_id"] for item in answer["items"]]
        assert gone not in find(client, everything) and find(client, NAMED) == [NEW]
