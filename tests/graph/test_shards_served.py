"""Shards as deployments: the funnel's answers over HTTP, live changes, promotion, and a shard that is killed."""

import time

import httpx
import pytest
from test_served_is_funnel import expected

import serving_world
from conftest import wait_until_ready
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import load_stages
from impressions import wait_for_impression
from serving_world import open_rows, publish_other_bundle, write_world

pytestmark = pytest.mark.slow  # a service of ten replicas, of which one is killed

SHARDS = 2


@pytest.fixture(scope="module")
def world(tmp_path_factory, port):
    return write_world(tmp_path_factory.mktemp("shards"), port, with_content=True, shards=SHARDS)


@pytest.fixture(scope="module")
def shop(ray_cluster, world, port):
    from ray import cloudpickle, serve

    from handsell.serving.http.app import AppArgs, compose

    cloudpickle.register_pickle_by_value(serving_world)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(compose(AppArgs(config=str(world.config.source)), open_rows), name="shards", route_prefix="/shards")
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}/shards", timeout=30)
    wait_until_ready(client)
    yield client
    client.close()
    serve.shutdown()


def ask(shop, user="u1", count=12):
    answer = shop.get(f"/v1/users/{user}/recommendations?count={count}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def kill_shard(shard):
    import ray
    from ray.util import list_named_actors

    names = [one["name"] for one in list_named_actors(all_namespaces=True) if f"#Shard{shard}#" in one["name"]]
    assert len(names) == 1
    ray.kill(ray.get_actor(names[0], namespace="serve"))


def test_the_served_slate_is_that_of_one_index(shop, world):
    funnel = load_stages(open_bundles(world.config).local_path(world.bundle), world.config)
    for user in ("u1", "u2", "u3", "somebody_new"):
        answer = ask(shop, user)
        assert answer["degraded"] == []
        time_us = wait_for_impression(world.config, answer["recommendation_id"])["time"][0]
        assert [i["item_id"] for i in answer["items"]] == expected(funnel, world, user, time_us, 12)[0]
    story = shop.get("/v1/explain", params={"user_id": "u1", "item_id": ask(shop)["items"][0]["item_id"]}).json()
    assert story["outcome"] == "shown" and story["degraded"] == []


def test_a_new_item_comes_and_a_deleted_one_goes(shop, world):
    row = world.snapshot.metadata.slice(20, 1).to_pylist()[0]
    body = {"title": "Title 20", "tags": row["tags"], "text": row["text"], "published_at": "2024-01-01T00:00:00Z"}
    assert shop.put("/v1/items/brand_new", json=body).status_code in (200, 201)
    assert shop.delete("/v1/items/i22").status_code in (200, 204)
    query = {"user_id": "visitor", "surface": "email", "count": 30}
    query["session"] = {"events": [{"type": "like", "item_id": "i20"}]}

    def ids(text):
        answer = shop.post("/v1/recommendations", json={**query, "filter": text}).json()
        assert answer["degraded"] == []
        return {item["item_id"] for item in answer["items"]}

    until = time.monotonic() + 20
    while not (ids("item.item_id == 'brand_new'") and not ids("item.item_id == 'i22'")):
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_promoted_bundle_is_served_when_all_shards_hold_it(shop, world):
    store = open_bundles(world.config)
    other = publish_other_bundle(world, seed=4)
    store.promote(other)
    until, seen = time.monotonic() + 60, set()
    while other not in seen:
        answer = ask(shop)
        assert answer["degraded"] == [] and time.monotonic() < until
        seen.add(answer["release"]["bundle"])
        time.sleep(0.1)


def test_a_killed_shard_is_named_and_fails_no_request(shop):
    kill_shard(1)
    degraded, until = [], time.monotonic() + 60
    while not degraded or degraded[-1] or len(degraded) < 10:
        answer = ask(shop)
        assert len(answer["items"]) == 12 and time.monotonic() < until
        degraded.append(tuple(answer["degraded"]))
    assert ("shard:1",) in degraded and set(degraded) <= {(), ("shard:1",)}
