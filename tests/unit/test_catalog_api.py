"""Items and users over HTTP: read, put, patch, delete, bulk, any id, and a store that does not answer."""

from dataclasses import replace
from urllib.parse import quote

import pytest

from handsell.config import load_config
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader
from serving_service import start_service
from serving_world import write_world

IDS = ("acme/1001", "a%2Fb", "a//b", "a?v=1#x", "..", "a b", "a+b", "100%", "日本/🎧", "é", "x/similar", "x" * 256)
ITEM = {
    "title": "New",
    "creators": ["Ann"],
    "tags": "red|blue",
    "published_at": "2026-01-01",
    "price": 9.5,
    "color": {"r": 1, "g": 2},
}
STORED = {**ITEM, "tags": ["red", "blue"], "published_at": "2026-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
async def client(world):
    async with start_service(world) as (client, _):
        yield client


def read_changes(world):
    reader = open_reader(world.config)
    try:
        return reader.read_changes()
    finally:
        reader.close()


async def test_an_item_is_put_read_replaced_deleted_and_put_again(client, world):
    assert (await client.get("/v1/items/new")).status_code == 404
    answer = await client.put("/v1/items/new", json=ITEM)
    assert answer.status_code == 201
    assert answer.json() == {"item_id": "new", **STORED, "available": True}
    assert (await client.get("/v1/items/new")).json() == {"item_id": "new", **STORED, "available": True}
    answer = await client.put("/v1/items/new", json={"item_id": "new", "title": "Other", "available": False})
    assert (answer.status_code, answer.json()) == (200, {"item_id": "new", "title": "Other", "available": False})
    assert (await client.get("/v1/items/new")).json() == answer.json()
    answer = await client.delete("/v1/items/new")
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("get", "delete"):
        gone = await getattr(client, method)("/v1/items/new")
        assert (gone.status_code, gone.json()["code"]) == (404, "unknown_item")
    assert (await client.patch("/v1/items/new", json={"title": "x"})).status_code == 404
    assert (await client.put("/v1/items/new", json={})).status_code == 201
    assert (await client.get("/v1/items/new")).json() == {"item_id": "new", "available": True}
    changes = read_changes(world)
    assert [(c.kind, c.id, c.action) for c in changes] == [
        ("item", "new", "put"), ("item", "new", "put"), ("item", "new", "delete"), ("item", "new", "put"),
    ]  # fmt: skip
    assert changes[0].fields == {
        "title": "New", "creators": ["Ann"], "tags": ["red", "blue"], "text": None, "expires_at": None,
        "published_at": 1_767_225_600_000_000, "available": None, "price": 9.5, "color": {"r": 1, "g": 2},
    }  # fmt: skip


async def test_changes_are_merged_over_the_row_of_the_bundle(client):
    before = (await client.get("/v1/items/i3")).json()
    assert before["title"] == "Title 3" and before["text"] == "never shown" and before["available"]
    assert before["published_at"].endswith("Z")
    answer = await client.patch("/v1/items/i3", json={"title": "Changed", "text": None, "year": 2026})
    assert answer.status_code == 200
    after = {**{n: v for n, v in before.items() if n != "text"}, "title": "Changed", "year": 2026}
    assert answer.json() == after
    assert (await client.get("/v1/items/i3")).json() == after
    assert (await client.get("/v1/items/i7")).json()["available"] is False
    assert (await client.delete("/v1/items/i3")).status_code == 204
    assert (await client.get("/v1/items/i3")).status_code == 404


async def test_a_patch_is_a_json_merge_patch(client, world):
    await client.put("/v1/items/new", json=ITEM)
    headers = {"content-type": "application/merge-patch+json"}
    answer = await client.patch(
        "/v1/items/new", content=b'{"color": {"g": null, "b": 3}, "price": null}', headers=headers
    )
    expected = {n: v for n, v in STORED.items() if n != "price"} | {"color": {"r": 1, "b": 3}}
    assert answer.json() == {"item_id": "new", **expected, "available": True}
    assert read_changes(world)[-1].fields == {"color": {"r": 1, "b": 3}, "price": None}
    assert (await client.patch("/v1/items/new", json={})).json() == answer.json()
    assert (
        await client.patch("/v1/items/new", content=b"{}", headers={"content-type": "text/plain"})
    ).status_code == 415


async def test_every_wrong_field_is_named(client, world):
    body = {"published_at": "soon", "tags": [["x"]], "available": "maybe", "Title": "x"}
    for method, path in (("put", "/v1/items/new"), ("patch", "/v1/items/i1")):
        answer = await getattr(client, method)(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_item")
        assert [error["field"] for error in answer.json()["errors"]] == ["tags", "published_at", "available", "Title"]
        assert answer.json()["detail"] == "tags: expected lists of text, got a list of lists"
    other = await client.put("/v1/items/new", json={"item_id": "other"})
    assert other.json()["errors"][0]["field"] == "item_id"
    long = await client.put("/v1/items/" + "x" * 257, json={})
    assert long.status_code == 422
    for body in (b"[]", b"null", b'"x"', b"{"):
        answer = await client.put("/v1/items/new", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422)
    assert read_changes(world) == []


async def test_many_items_are_accepted_and_rejected_one_by_one(client, world):
    items = [
        {"item_id": "a", "title": "A"}, {"title": "no id"}, {"item_id": "b", "tags": "x|y"}, 7,
        {"item_id": "c", "published_at": "soon"}, {"item_id": ""}, {"item_id": "x" * 257},
        {"item_id": "a", "title": "A2"},
    ]  # fmt: skip
    answer = await client.post("/v1/items", json={"items": items})
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 3
    rejected = [(r["index"], r["code"], r["field"]) for r in answer.json()["rejected"]]
    assert rejected == [
        (1, "invalid_item", "item_id"), (3, "invalid_item", ""), (4, "invalid_item", "published_at"),
        (5, "invalid_item", "item_id"), (6, "invalid_item", "item_id"),
    ]  # fmt: skip
    assert (await client.get("/v1/items/a")).json()["title"] == "A2"
    assert (await client.get("/v1/items/b")).json()["tags"] == ["x", "y"]
    assert [c.id for c in read_changes(world)] == ["a", "b", "a"]
    assert (await client.post("/v1/items", json={"items": []})).status_code == 422


async def test_at_most_a_thousand_items(world):
    config = replace_limit(world)
    async with start_service(world, config=config) as (client, _):
        items = [{"item_id": f"n{i}"} for i in range(1_001)]
        answer = await client.post("/v1/items", json={"items": items})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_items")
        assert (await client.post("/v1/items", json={"items": items[1:]})).json() == {"accepted": 1_000, "rejected": []}
        assert len(read_changes(world)) == 1_000


def replace_limit(world):
    return world.config.model_copy(
        update={"serving": world.config.serving.model_copy(update={"max_body_bytes": 10**6})}
    )


@pytest.mark.parametrize("kind", ["item", "user"])
async def test_rows_with_any_id_by_path_and_query(client, kind):
    for identifier in IDS:
        query, listed = {f"{kind}_id": identifier}, f"/v1/{kind}s"
        assert (await client.put(listed, params=query, json={"note": identifier})).status_code == 201, identifier
        assert (await client.get(listed, params=query)).json()["note"] == identifier
        assert (await client.patch(listed, params=query, json={"other": 1})).json()["other"] == 1
        if "/similar" not in identifier:  # an endpoint by path
            path = f"{listed}/{quote(identifier, safe='').replace('.', '%2E')}"
            assert (await client.get(path)).json()[f"{kind}_id"] == identifier
            assert (await client.put(path, json={"note": 2})).status_code == 200
            assert (await client.patch(path, json={"note": 3})).json()["note"] == 3
            assert (await client.delete(path)).status_code == 204
            assert (await client.put(path, json={})).status_code == 201
        assert (await client.delete(listed, params=query)).status_code == 204
        assert (await client.get(listed, params=query)).status_code == 404


async def test_users(world):
    features = world.config.features.model_copy(
        update={"user_attributes": {"age": "number", "plan": "text", "langs": "list of texts"}}
    )
    rows = {"u1": {**world.rows["u1"], "age": 30.0, "plan": "free", "langs": ["de"]}, "u2": world.rows["u2"]}
    world = replace(world, config=world.config.model_copy(update={"features": features}), rows=rows)
    async with start_service(world, config=world.config) as (client, _):
        assert (await client.get("/v1/users/u1")).json() == {
            "user_id": "u1",
            "age": 30.0,
            "plan": "free",
            "langs": ["de"],
        }
        assert (await client.get("/v1/users/u2")).json() == {"user_id": "u2"}
        assert (await client.get("/v1/users/stranger")).status_code == 404
        answer = await client.patch("/v1/users/u1", json={"age": "31", "plan": None, "langs": "en|fr", "seat": 4})
        assert answer.json() == {"user_id": "u1", "age": 31, "langs": ["en", "fr"], "seat": 4}
        assert (await client.get("/v1/users/u1")).json() == answer.json()
        wrong = await client.put("/v1/users/u9", json={"age": "old", "plan": ["x"]})
        assert [error["field"] for error in wrong.json()["errors"]] == ["age", "plan"]
        assert wrong.json()["detail"] == "age: expected a number, got 'old', because of features.user_attributes"
        many = [{"user_id": "u9", "age": 50}, {"user_id": "u10", "age": {}}]
        answer = (await client.post("/v1/users", json={"users": many})).json()
        assert answer["accepted"] == 1 and [r["index"] for r in answer["rejected"]] == [1]
        assert (await client.get("/v1/users/u9")).json() == {"user_id": "u9", "age": 50}
        assert (await client.delete("/v1/users/u1")).status_code == 204
        assert (await client.get("/v1/users/u1")).status_code == 404


async def test_changed_attributes_of_users_hold_in_filters_that_read_them(tmp_path):
    """The filter of the surface lets children see red items only; the request's own filter reads a number."""
    world = write_world(tmp_path)
    path = world.config.source
    text = path.read_text().replace(
        "[surfaces.home]\n", """[surfaces.home]\nfilter = "user.plan != 'kids' or 'red' in item.tags"\n"""
    )
    attributes = 'user_attributes = { plan = "text", age = "number" }'
    path.write_text(text.replace("[features]\n", f"[features]\n{attributes}\n"))
    rows = {user: {**row, "plan": "pro", "age": 40.0} for user, row in world.rows.items()}
    world = replace(world, config=load_config(path), rows=rows)
    grown_up = "user.age >= 18 or item.title == 'Title 3'"
    async with start_service(world) as (client, service):

        async def find_shown(user, filter=None):
            service.bundle.catalog.read()  # as the thread does every second
            body = {"user_id": user, "count": 20, "filter": filter}
            answer = await client.post("/v1/recommendations", json=body)
            assert answer.status_code == 200 and not answer.json()["degraded"], answer.text
            return {int(item["item_id"][1:]) for item in answer.json()["items"]}

        async def shows_red_only(user):
            return all(item % 2 for item in await find_shown(user))

        assert not await shows_red_only("u1")
        changed = await client.patch("/v1/users/u1", json={"plan": "kids", "age": 9})
        assert (changed.status_code, changed.json()["plan"]) == (200, "kids")
        assert await shows_red_only("u1") and await find_shown("u1", grown_up) <= {3}
        assert not await shows_red_only("u2") and len(await find_shown("u2", grown_up)) == 20
        await client.patch("/v1/users/u1", json={"plan": "pro"})
        assert not await shows_red_only("u1") and await find_shown("u1", grown_up) <= {3}  # the age stays
        assert await shows_red_only("stranger")  # whose plan is unknown
        assert (await client.put("/v1/users/stranger", json={"plan": "pro"})).status_code == 201
        assert not await shows_red_only("stranger")
        await client.post("/v1/users", json={"users": [{"user_id": "u3", "plan": "kids"}]})
        assert await shows_red_only("u3")


async def test_a_store_that_does_not_answer_is_503_and_nothing_is_stored(world):
    async with start_service(world) as (client, service):

        async def refuse(changes):
            raise EventStoreError("disk full")

        service.changes.events = type("Broken", (), {"append_changes": staticmethod(refuse)})()
        for method, path, body in (
            ("PUT", "/v1/items/new", {}), ("PATCH", "/v1/items/i1", {"title": "x"}), ("DELETE", "/v1/items/i1", None),
            ("POST", "/v1/items", {"items": [{"item_id": "new"}]}), ("PUT", "/v1/users/u1", {}),
        ):  # fmt: skip
            answer = await client.request(method, path, json=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), method
        assert (await client.get("/v1/items/i1")).json()["title"] == "Title 1"


async def test_a_store_that_cannot_be_read_is_503(world):
    async with start_service(world) as (client, service):
        service.changes._reader = BrokenReader()
        for method, path in (("GET", "/v1/items/i1"), ("PUT", "/v1/items/i1"), ("GET", "/v1/users/u1")):
            answer = await client.request(method, path, json={} if method == "PUT" else None)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), method


class BrokenReader:
    def read_changes_of(self, kind, ids):
        raise EventStoreError("not reachable")

    def close(self):
        pass


async def test_columns_of_users_that_are_named_like_times_of_items_are_any_json(world):
    async with start_service(world) as (client, _):
        for value in (2**63, -1, 5, True, "soon", [1]):
            for name in ("published_at", "expires_at", "available"):
                answer = await client.put("/v1/users/u5", json={name: value})
                assert answer.status_code in (200, 201) and answer.json()[name] == value
                assert (await client.get("/v1/users/u5")).json()[name] == value
