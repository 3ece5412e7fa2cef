"""Ids with any characters, by path and by query; HEAD; defaults and limits of `count`."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from starlette.datastructures import QueryParams

from handsell.catalog.vocabulary import Vocabulary
from handsell.serving.http.problems import check_encoding
from serving_service import start_service
from serving_world import ITEMS, write_world

IDS = (
    "acme/1001", "a%2Fb", "a//b", "/a", "a/", "a?v=1#x", "x/recommendations", "x/blocks", "x/similar", ".", "..",
    "../x", "a b", "a+b", "a&b=c", "100%", "日本/🎧", "[/b]", "recommendations", "é", "\\", "x" * 256,
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


def by_path(identifier: str) -> str:
    """Encode an id for a path; httpx would resolve dot segments."""
    return quote(identifier, safe="").replace(".", "%2E")


async def test_users_with_any_id_by_path_query_and_body(world):
    async with start_service(world) as (client, _):
        for n, user in enumerate(IDS):
            event = {"type": "like", "item_id": "i90", "user_id": user}
            assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
            answers = [
                await client.get(f"/v1/users/{by_path(user)}/recommendations?count=3"),
                await client.get("/v1/recommendations", params={"user_id": user, "count": 3}),
                await client.post("/v1/recommendations", json={"user_id": user, "count": 3}),
            ]
            assert [answer.status_code for answer in answers] == [200] * 3, user
            assert not any(answer.json()["cold_start"] for answer in answers), user
            assert len({tuple(i["item_id"] for i in answer.json()["items"]) for answer in answers}) == 1
            path, query = f"/v1/users/{by_path(user)}/blocks", {"user_id": user}
            blocks = {"user_id": user, "creators": [f"c{n}"], "tags": []}
            body = {"creators": blocks["creators"]}
            assert (await client.put(path, json=body)).json() == blocks
            assert (await client.get("/v1/blocks", params=query)).json() == blocks
            assert (await client.delete("/v1/blocks", params=query)).json()["creators"] == []
            assert (await client.put("/v1/blocks", params=query, json=body)).json() == blocks
            assert (await client.get(path)).json() == blocks
            assert (await client.delete(path)).json()["creators"] == []


async def test_items_with_any_id_by_path_and_query(world):
    async with start_service(world) as (client, service):
        renamed = Vocabulary.of([*IDS, *(f"i{i}" for i in range(len(IDS), ITEMS))])
        bundle = service.bundle
        bundle.catalog.snapshot = replace(bundle.snapshot, items=renamed)
        for item in IDS:
            path = await client.get(f"/v1/items/{by_path(item)}/similar?count=3")
            query = await client.get("/v1/similar", params={"item_id": item, "count": 3})
            assert path.status_code == query.status_code == 200, item
            assert path.json()["items"] == query.json()["items"] != []
            explained = await client.get("/v1/explain", params={"user_id": "u1", "item_id": item})
            assert explained.status_code == 200 and explained.json()["item_id"] == item
            ranked = (await client.post("/v1/rank", json={"user_id": "u1", "item_ids": [item, "i90"]})).json()
            assert {i["item_id"] for i in ranked["items"]} == {item, "i90"}
        for answer in (
            await client.get("/v1/items/AB%2F12/similar"),
            await client.get("/v1/similar", params={"item_id": "AB/12"}),
        ):
            assert answer.status_code == 404 and answer.json()["code"] == "unknown_item"


async def test_invalid_ids_and_parameters_of_the_query_forms(world):
    async with start_service(world) as (client, _):
        for path, field in (
            ("/v1/blocks", "user_id"),
            ("/v1/blocks?user_id=", "user_id"),
            ("/v1/similar", "item_id"),
            ("/v1/similar?item_id=a%0Ab", "item_id"),
            ("/v1/users/a%09b/recommendations", "user_id"),
            ("/v1/users/a%0Ab/recommendations", "user_id"),
            ("/v1/items/a%0A/similar", "item_id"),
            ("/v1/users/caf%E9/recommendations", "path"),
            ("/v1/recommendations?user_id=caf%E9", "query"),
            ("/v1/recommendations?user_id=" + "x" * 257, "user_id"),
            ("/v1/recommendations?user=u1", "user"),
        ):
            answer = await client.get(path)
            assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == field, path
        visitor = (await client.get("/v1/recommendations")).json()
        assert visitor["cold_start"] and len(visitor["items"]) == 10


def test_a_query_may_have_utf8_that_is_not_encoded():
    """As curl sends it. Starlette reads it as Latin-1."""
    scope = {"query_string": "user_id=日本+é%C3%A9".encode()}
    assert check_encoding(scope) is None
    assert QueryParams(scope["query_string"])["user_id"] == "日本 éé"


async def test_a_path_with_a_slash_at_its_end_is_unknown(world):
    """A redirect would send `a%252Fb` to the user `a/b`."""
    async with start_service(world) as (client, _):
        for path in ("/v1/users/a%252Fb/recommendations/", "/v1/popular/"):
            answer = await client.get(path)
            assert answer.status_code == 404 and answer.json()["code"] in ("not_found", "unknown_user")


async def test_the_metrics_name_routes_without_ids(world):
    async with start_service(world) as (client, _):
        await client.get("/v1/users/acme%2F1001/recommendations")
        text = (await client.get("/metrics")).text
        assert 'route="/v1/users/{user_id}/recommendations"' in text and "acme" not in text


async def test_every_get_answers_head_without_a_body(world):
    async with start_service(world) as (client, _):
        paths = (await client.get("/openapi.json")).json()["paths"]
        gets = [path for path, operations in paths.items() if "get" in operations]
        assert len(gets) >= 12
        for path in [*gets, "/openapi.json", "/v1/popular?count=0", "/v1/nowhere", "/v1/items/nowhere/similar"]:
            url = path.format(user_id="u1", item_id="i90")
            get, head = await client.get(url), await client.head(url)
            assert head.status_code == get.status_code and head.content == b"", path
            assert head.headers["content-type"] == get.headers["content-type"]
            assert int(head.headers["content-length"]) > 0
        assert (await client.head("/v1/rank")).status_code == 405


async def test_count_has_a_default_for_each_list(world):
    async with start_service(world) as (client, _):
        for path in ("/v1/users/u1/recommendations", "/v1/items/i90/similar", "/v1/popular", "/v1/trending"):
            assert len((await client.get(path)).json()["items"]) == 10
            assert len((await client.get(path, params={"count": 30})).json()["items"]) > 10
            refused = await client.get(path, params={"count": 31})
            assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "count"
