"""No request causes a 5xx; every refusal is a problem document with the field and the expected value."""

import json

import pytest

from serving_service import start_service
from serving_world import write_world

JSON = {"content-type": "application/json"}
LONG = "x" * 257

BAD_BODIES = {
    "malformed": (b'{"user_id": "u1"', 400, ""),
    "not utf-8": (b'{"user_id": "\xff"}', 400, ""),
    "lone surrogate": (b'{"user_id": "\\ud800"}', 400, ""),
    "NaN": (b'{"count": NaN}', 400, ""),
    "empty": (b"", 422, ""),
    "not an object": (b"[1]", 422, ""),
    "null": (b"null", 422, ""),
    "deep": (b'{"session":' + b"[" * 5_000 + b"]" * 5_000 + b"}", 400, ""),
    "oversized": (b'{"user_id":"' + b"x" * 30_000 + b'"}', 413, ""),
    "unknown field": (b'{"user_id":"u1","color":"red"}', 422, "color"),
    "unknown nested field": (b'{"session":{"events":[],"x":1}}', 422, "session.x"),
    "count zero": (b'{"count":0}', 422, "count"),
    "count negative": (b'{"count":-1}', 422, "count"),
    "count huge": (b'{"count":1000000000}', 422, "count"),
    "count 400 digits": (b'{"count":' + b"9" * 400 + b"}", 400, ""),
    "count fraction": (b'{"count":1.5}', 422, "count"),
    "count text": (b'{"count":"5"}', 422, "count"),
    "count bool": (b'{"count":true}', 422, "count"),
    "id number": (b'{"user_id":7}', 422, "user_id"),
    "id empty": (b'{"user_id":""}', 422, "user_id"),
    "id long": (json.dumps({"user_id": LONG}).encode(), 422, "user_id"),
    "id with NUL": (b'{"user_id":"u1\\u0000"}', 422, "user_id"),
    "surface unknown": (b'{"surface":"moon"}', 422, "surface"),
    "session type unknown": (b'{"session":{"events":[{"type":"hum","item_id":"i1"}]}}', 422, "session.events.0.type"),
    "session time": (
        b'{"session":{"events":[{"type":"play","item_id":"i1","timestamp":"today"}]}}',
        422,
        "session.events.0.timestamp",
    ),
    "exclude wrong": (b'{"exclude":["i1"]}', 422, "exclude"),
    "include unknown": (b'{"include":["secrets"]}', 422, "include.0"),
}  # fmt: skip

BAD_PATHS = {
    "/v1/users/u1/recommendations?count=0": (422, "count"),
    "/v1/users/u1/recommendations?count=31": (422, "count"),
    "/v1/users/u1/recommendations?count=ten": (422, "count"),
    "/v1/users/u1/recommendations?count=1e3": (422, "count"),
    "/v1/users/u1/recommendations?surface=moon": (422, "surface"),
    "/v1/users/u1/recommendations?color=red": (422, "color"),
    f"/v1/users/{LONG}/recommendations": (422, "user_id"),
    "/v1/users/u1%00/recommendations": (422, "user_id"),
    "/v1/items/nothing-like-it/similar": (404, "item_id"),
    "/v1/items/i1/similar?surface=home": (422, "surface"),
    "/v1/popular?count=-3": (422, "count"),
    "/v1/trending?x=1": (422, "x"),
    "/v1/nowhere": (404, ""),
    "/v1/users//recommendations": (422, "user_id"),
}

GOOD = {"type": "play", "item_id": "i1", "user_id": "u1"}

BAD_BATCHES = {
    "no events": ({"events": []}, 422, "events"),
    "events is an object": ({"events": {"0": GOOD}}, 422, "events"),
    "unknown field": ({"events": [GOOD], "x": 1}, 422, "x"),
    "too many": ({"events": [GOOD] * 51}, 413, "events"),
}

BAD_EVENTS = [  # changes of a good event (None: no such field), the code and the field of the rejection
    ({"type": None}, "invalid_event", "type"),
    ({"type": 7}, "invalid_event", "type"),
    ({"type": "hum"}, "unknown_event_type", "type"),
    ({"item_id": None}, "invalid_event", "item_id"),
    ({"item_id": 123}, "invalid_event", "item_id"),
    ({"item_id": ""}, "invalid_event", "item_id"),
    ({"item_id": LONG}, "invalid_event", "item_id"),
    ({"item_id": ["i1"]}, "invalid_event", "item_id"),
    ({"user_id": None}, "no_user", "user_id"),
    ({"user_id": ""}, "invalid_event", "user_id"),
    ({"user_id": 5}, "invalid_event", "user_id"),
    ({"user_id": "u\x00"}, "invalid_event", "user_id"),
    ({"anonymous_id": True}, "invalid_event", "anonymous_id"),
    ({"event_id": 1.5}, "invalid_event", "event_id"),
    ({"value": "5"}, "invalid_event", "value"),
    ({"value": 1e300}, "invalid_event", "value"),
    ({"position": 0}, "invalid_event", "position"),
    ({"position": 1.5}, "invalid_event", "position"),
    ({"surface": {}}, "invalid_event", "surface"),
    ({"recommendation_id": "x" * 65}, "invalid_event", "recommendation_id"),
    ({"color": "red"}, "invalid_event", "color"),
    ({"timestamp": "9999-01-01T00:00:00Z"}, "invalid_event", "timestamp"),
    ({"timestamp": "2026-01-01T00:00:00"}, "invalid_event", "timestamp"),
    ({"timestamp": "2026-06-28 10:00:00"}, "invalid_event", "timestamp"),
    ({"timestamp": 1_782_640_800}, "invalid_event", "timestamp"),
    ({"timestamp": 7_000_000_000_000}, "in_the_future", "timestamp"),
    ({"timestamp": 0}, "before_2000", "timestamp"),
    ({"timestamp": "1999-12-31T23:59:59Z"}, "before_2000", "timestamp"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
async def client(world):
    async with start_service(world) as (client, _):
        yield client


def is_problem(answer, status, field):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status and body["title"] and body["detail"] and body["code"]
    assert len(answer.content) < 5_000
    if field:
        assert field in [e["field"] for e in body["errors"]]


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("path", ["/v1/recommendations"])
async def test_bad_bodies(client, path, name):
    content, status, field = BAD_BODIES[name]
    is_problem(await client.post(path, content=content, headers=JSON), status, field)


@pytest.mark.parametrize("name", ["malformed", "not utf-8", "NaN", "deep", "oversized", "empty", "not an object"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/rank"])
async def test_bad_bodies_elsewhere(client, path, name):
    content, status, _ = BAD_BODIES[name]
    is_problem(await client.post(path, content=content, headers=JSON), status, "")


@pytest.mark.parametrize("path", BAD_PATHS)
async def test_bad_paths_and_parameters(client, path):
    is_problem(await client.get(path), *BAD_PATHS[path])


@pytest.mark.parametrize("name", BAD_BATCHES)
async def test_bad_batches(client, name):
    body, status, field = BAD_BATCHES[name]
    is_problem(await client.post("/v1/events", json=body), status, field)


@pytest.mark.parametrize(("change", "code", "field"), BAD_EVENTS, ids=lambda part: str(part)[:60])
async def test_a_bad_event_is_rejected_and_its_neighbors_are_stored(client, change, code, field):
    bad = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    answer = await client.post("/v1/events", json={"events": [GOOD, bad, GOOD]})
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["accepted"] == 2
    [rejected] = body["rejected"]
    assert (rejected["index"], rejected["code"], rejected["field"]) == (1, code, field)
    assert rejected["detail"].startswith(f"{field}: ") and len(rejected["detail"]) < 400
    assert "Value error" not in answer.text  # a prefix of pydantic


async def test_invalid_events_are_reported_by_index(client):
    wrong = [None, 7, "event", [GOOD], {}, {**GOOD, "item_id": None}, {**GOOD, "timestamp": 1_782_640_800.5}]
    unknown_item = {**GOOD, "item_id": "not-yet-known", "timestamp": 1_767_323_045_678.5}
    body = (await client.post("/v1/events", json={"events": [*wrong, unknown_item]})).json()
    assert body["accepted"] == 1 and body["duplicates"] == 0
    assert [r["index"] for r in body["rejected"]] == list(range(len(wrong)))
    assert body["rejected"][0]["field"] == "" and body["rejected"][5]["field"] == "item_id"
    assert "epoch seconds" in body["rejected"][6]["detail"]
    assert "handsell_events_unknown_items_total 1.0" in (await client.get("/metrics")).text
    nothing_stored = (await client.post("/v1/events", json={"events": wrong})).json()
    assert nothing_stored["accepted"] == 0 and len(nothing_stored["rejected"]) == len(wrong)


async def test_old_events_need_a_setting(world):
    serving = world.config.serving.model_copy(update={"events_before_2000": True})
    config = world.config.model_copy(update={"serving": serving})
    async with start_service(world, config=config) as (client, _):
        events = [{**GOOD, "timestamp": time} for time in (0, "1984-01-01T00:00:00Z", 1_782_640_800)]
        body = (await client.post("/v1/events", json={"events": events})).json()
        assert body["accepted"] == 2 and "epoch seconds" in body["rejected"][0]["detail"]


async def test_wrong_methods_and_media_types(client):
    is_problem(await client.delete("/v1/popular"), 405, "")
    is_problem(await client.post("/v1/recommendations", content=b"{}", headers={"content-type": "text/plain"}), 415, "")
    is_problem(await client.post("/v1/recommendations", content=b"{}"), 415, "content-type")


async def test_a_body_without_a_content_length_is_limited(client):
    async def endless():
        for _ in range(100):
            yield b" " * 1_000

    is_problem(await client.post("/v1/recommendations", content=endless(), headers=JSON), 413, "")


async def test_the_surfaces_are_listed_where_one_is_unknown(client):
    answer = await client.post("/v1/recommendations", json={"surface": "moon"})
    assert "home, similar, email" in answer.json()["detail"] and "'moon'" in answer.json()["detail"]


async def test_the_document_has_every_status_that_occurred(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path, method, statuses in (
        ("/v1/recommendations", "post", {"200", "400", "401", "403", "413", "415", "422", "429", "500", "503"}),
        ("/v1/events", "post", {"202", "400", "401", "403", "413", "415", "422", "429", "500", "503"}),
        ("/v1/items/{item_id}/similar", "get", {"200", "401", "403", "404", "422", "429", "500", "503"}),
    ):
        responses = paths[path][method]["responses"]
        assert set(responses) == statuses
        assert list(responses["422"]["content"]) == ["application/problem+json"]


async def test_a_surface_in_a_query_string_is_checked_like_one_in_a_body(world):
    """The query string once accepted values that the body refused, which caused a 500."""
    async with start_service(world) as (client, _):
        wrong = {"surface": "home\x03"}
        told = {"user_id": "u1", "item_id": "i1", **wrong}
        for path, parameters in (("/v1/users/u1/recommendations", wrong), ("/v1/explain", told)):
            answer = await client.get(path, params=parameters)
            assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "surface"
