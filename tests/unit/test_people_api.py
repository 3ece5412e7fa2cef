"""Visitors who become users, and erased people, over HTTP."""

import asyncio
import copy
from dataclasses import replace

import pytest

from handsell.config import load_config
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader
from handsell.serving.graph.loading import open_bundle
from serving_service import start_service
from serving_world import DictStore, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


def open_copy(world):
    """Rows of the feature store that a test may change."""
    return DictStore(world.config, copy.deepcopy(world.rows))


async def like(client, items, **who):
    events = [{"type": "like", "item_id": item, **who} for item in items]
    assert (await client.post("/v1/events", json={"events": events})).json()["accepted"] == len(items)


async def merge(client, visitor_id, user_id):
    return await client.post("/v1/identities/merge", json={"visitor_id": visitor_id, "user_id": user_id})


async def recommend(client, **who):
    return (await client.post("/v1/recommendations", json={**who, "count": 8})).json()


def ids(answer):
    return [item["item_id"] for item in answer["items"]]


async def test_a_visitors_requests_are_answered_as_the_users(world):
    async with start_service(world, store=open_copy(world)) as (client, _):
        await like(client, ["i90", "i91", "i92"], anonymous_id="v1")
        assert (await recommend(client, user_id="new"))["cold_start"]
        visitor = await recommend(client, anonymous_id="v1")
        assert not visitor["cold_start"]
        answer = await merge(client, "v1", "new")
        assert (answer.status_code, answer.json()) == (
            200, {"visitor_id": "v1", "user_id": "new", "moved_events": 3, "duplicates": 0},
        )  # fmt: skip
        user = await recommend(client, user_id="new")
        assert not user["cold_start"] and ids(user) == ids(visitor) == ids(await recommend(client, anonymous_id="v1"))
        shown = ids(user)[0]
        await like(client, [shown], anonymous_id="v1")  # counts for the user, and is not shown again
        assert shown not in ids(await recommend(client, user_id="new"))
        again = await merge(client, "v1", "new")
        assert (again.status_code, again.json()["moved_events"]) == (200, 0)
        ranked = await client.post("/v1/rank", json={"anonymous_id": "v1", "item_ids": ["i1", "i2"]})
        expected = await client.post("/v1/rank", json={"user_id": "new", "item_ids": ["i1", "i2"]})
        assert ranked.json() == expected.json()


async def test_conflicting_merges_are_refused_in_words(world):
    async with start_service(world, store=open_copy(world)) as (client, _):
        await like(client, ["i90"], anonymous_id="v1")
        assert (await merge(client, "v1", "ann")).status_code == 200
        other = await merge(client, "v1", "bob")
        assert (other.status_code, other.json()["code"]) == (409, "identity_conflict")
        assert "belongs to user 'ann'" in other.json()["detail"]
        for user_id in ("anonymous:v1", "anonymous:v2"):
            answer = await merge(client, "v3", user_id)
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "user_id")
        assert (await merge(client, "", "ann")).status_code == 422
        same_text = await merge(client, "bob", "bob")  # visitors and users have separate ids
        assert same_text.status_code == 200


async def test_another_gateway_follows_within_seconds(world):
    async with start_service(world, store=open_copy(world)) as (client, service):
        await like(client, ["i90", "i91"], anonymous_id="v1")
        await service._events.merge_identity("anonymous:v1", "new", 1)  # as another gateway does
        for _ in range(100):
            if service.identities.find_user("anonymous:v1") == "new":
                break
            await asyncio.sleep(0.1)
        assert ids(await recommend(client, anonymous_id="v1")) == ids(await recommend(client, user_id="new"))


async def test_blocks_of_both_are_united(world):
    async with start_service(world, store=open_copy(world)) as (client, service):
        await client.put("/v1/users/ann/blocks", json={"creators": ["c1"], "tags": ["red"]})
        await service._events.put_blocks("anonymous:v1", ["c2"], ["red", "blue"])
        await merge(client, "v1", "ann")
        blocks = (await client.get("/v1/users/ann/blocks")).json()
        assert blocks == {"user_id": "ann", "creators": ["c1", "c2"], "tags": ["red", "blue"]}
        assert (await client.get("/v1/users/anonymous%3Av1/blocks")).json()["creators"] == ["c1", "c2"]


async def test_an_erased_person_is_unknown_at_once(world):
    store = open_copy(world)
    async with start_service(world, store=store) as (client, _):
        await like(client, ["i90"], user_id="u1")
        await like(client, ["i91"], user_id="u10")
        await like(client, ["i92"], anonymous_id="v1")
        await merge(client, "v1", "u1")
        await client.put("/v1/users/u1", json={"plan": "pro"})
        await client.put("/v1/users/u1/blocks", json={"creators": ["c1"]})
        await recommend(client, user_id="u1")
        answer = await client.delete("/v1/users/u1?erase=true")
        assert answer.status_code == 202
        assert answer.json()["status"] == "pending" and answer.json()["deleted_rows"] >= 5
        assert any(world.bundle in line for line in answer.json()["pending"])
        assert "u1" not in store.rows and "u10" in store.rows
        assert (await recommend(client, user_id="u1"))["cold_start"]
        assert (await recommend(client, anonymous_id="v1"))["cold_start"]
        assert (await client.get("/v1/users/u1")).status_code == 404
        assert (await client.get("/v1/users/u1/blocks")).json()["creators"] == []
        assert not (await recommend(client, user_id="u10"))["cold_start"]
        again = await client.delete("/v1/users", params={"user_id": "u1", "erase": "true"})
        assert again.status_code == 202
        await like(client, ["i93"], user_id="u1")  # a new history begins
        assert not (await recommend(client, user_id="u1"))["cold_start"]
    reader = open_reader(world.config)
    pending = {erasure.user_id for erasure in reader.read_erasures()}
    reader.close()
    assert pending == {"u1", "anonymous:v1"}


async def test_changed_attributes_of_an_erased_user_are_forgotten_on_every_gateway(tmp_path):
    world = write_world(tmp_path)
    path = world.config.source
    path.write_text(path.read_text().replace("[features]\n", '[features]\nuser_attributes = { plan = "text" }\n'))
    rows = {user: {**row, "plan": None} for user, row in world.rows.items()}
    world = replace(world, config=load_config(path), rows=rows)
    async with start_service(world, store=open_copy(world)) as (client, service):
        other = open_bundle(str(path), "live").live  # of another gateway, or another bundle

        async def count_shown(user_id):
            body = {"user_id": user_id, "filter": "user.plan == 'pro'"}
            return len((await client.post("/v1/recommendations", json=body)).json()["items"])

        for user_id in ("u1", "u2", "u3"):
            await client.put(f"/v1/users/{user_id}", json={"plan": "pro"})
        service.bundle.catalog.read(), other.read()
        assert await count_shown("u1") and other.users.keys() == {"u1", "u2", "u3"}
        await client.delete("/v1/users/u1?erase=true")
        assert not await count_shown("u1") and await count_shown("u2")
        await client.delete("/v1/users/u3?erase=true")
        await client.put("/v1/users/u3", json={"plan": "free"})  # comes back
        for catalog in (service.bundle.catalog, other):
            catalog._read_erasures_at = 0.0  # as seconds later
            catalog.read()
            assert catalog.users == {"u2": {"plan": "pro"}, "u3": {"plan": "free"}}


async def test_without_erase_only_the_attributes_go(world):
    async with start_service(world, store=open_copy(world)) as (client, _):
        await like(client, ["i90"], user_id="u1")
        assert (await client.delete("/v1/users/u1")).status_code == 204
        assert not (await recommend(client, user_id="u1"))["cold_start"]
        assert (await client.get("/v1/users/u1")).status_code == 404


async def test_a_feature_store_that_does_not_answer_is_named(world):
    store = open_copy(world)
    async with start_service(world, store=store) as (client, _):

        def fail(user_ids):
            raise ConnectionError("down")

        store.forget_users = fail
        answer = await client.delete("/v1/users/u1?erase=true")
        assert answer.status_code == 202 and answer.json()["pending"][0].startswith("online features")


async def test_a_store_that_does_not_answer_is_503(world):
    async with start_service(world, store=open_copy(world)) as (client, service):

        async def refuse(*_):
            raise EventStoreError("disk full")

        service.people._events = type(
            "Down", (), {"merge_identity": staticmethod(refuse), "erase_user": staticmethod(refuse)}
        )()
        for answer in (await merge(client, "v1", "ann"), await client.delete("/v1/users/u1?erase=true")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
