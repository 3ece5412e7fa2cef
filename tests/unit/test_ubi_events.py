"""Events in the format of User Behavior Insights: mapped with position and recommendation id; the rest is named."""

import contextlib
import time
from datetime import UTC, datetime

import jwt
import numpy as np
import pytest

from handsell.access.api_key import create_key
from handsell.access.config import AccessConfig
from handsell.events.store.opening import open_reader
from serving_service import start_service
from serving_world import write_world

JSON = {"content-type": "application/json"}
EVENT = {  # the example of the specification, with an action that this shop knows
    "application": "type-ahead", "action_name": "like", "query_id": "00112233-4455-6677-8899-aabbccddeeff",
    "session_id": "84266fdbd31d4c2c6d0665f7e8380fa3", "client_id": "5e3b2a1c-8b7d-4f2e-a3d4-c9b2e1f3a4b5",
    "user_id": "", "timestamp": "2026-06-13T20:20:39+00:00", "message_type": "CONVERSION", "message": "bought",
    "event_attributes": {
        "object": {"object_id": "i5", "object_id_field": "sku", "internal_id": 17},
        "position": {"ordinal": 3, "xy": {"x": 1.5, "y": 2}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@contextlib.asynccontextmanager
async def start(world, types=None, **changes):
    serving = world.config.serving.model_copy(update={"ubi_types": types or {}})
    config = world.config.model_copy(update={"serving": serving, **changes})
    async with start_service(world, config=config) as (client, service):
        yield client, service


def read_events(world):
    with contextlib.closing(open_reader(world.config)) as reader:
        columns = reader.scan()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


async def test_an_event_arrives_with_position_and_recommendation_id(world):
    async with start(world) as (client, _):
        answer = await client.post("/v1/ubi_events", json=[EVENT])
        assert answer.status_code == 202
        assert answer.json() == {
            "accepted": 1, "duplicates": 0, "rejected": [],
            "not_kept": {
                "application": 1, "session_id": 1, "message_type": 1, "message": 1,
                "event_attributes.object.object_id_field": 1, "event_attributes.object.internal_id": 1,
                "event_attributes.position.xy": 1,
            },
        }  # fmt: skip
        (event,) = read_events(world)
        assert event["user_id"].endswith("5e3b2a1c-8b7d-4f2e-a3d4-c9b2e1f3a4b5") and event["item_id"] == "i5"
        assert (event["type"], event["position"]) == ("like", 3)
        assert event["recommendation_id"] == "00112233-4455-6677-8899-aabbccddeeff"
        assert event["time"] == datetime(2026, 6, 13, 20, 20, 39, tzinfo=UTC).timestamp() * 1e6
        again = await client.post("/v1/ubi_events", json=EVENT)  # one event that is no list
        assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 1)


async def test_clicks_on_a_slate_join_its_impression(world):
    """As a page does: a slate, and clicks that name its id and the positions."""
    async with start(world) as (client, service):
        slate = (await client.get("/v1/users/ann/recommendations?count=5")).json()
        clicks = [
            {
                "action_name": "play", "query_id": slate["recommendation_id"], "user_id": "ann", "client_id": "browser",
                "timestamp": f"2026-06-13T20:20:3{item['rank']}Z",
                "event_attributes": {"object": {"object_id": item["item_id"]}, "position": {"ordinal": item["rank"]}},
            }
            for item in slate["items"][1:3]
        ]  # fmt: skip
        assert (await client.post("/v1/ubi_events", json=clicks)).json()["accepted"] == 2
        await service._impressions.close()
        with contextlib.closing(open_reader(world.config)) as reader:
            shown = reader.read_impressions()
        by_item = {
            item: (slate_id, position)
            for item, slate_id, position in zip(
                shown["item_id"], shown["recommendation_id"], shown["position"], strict=True
            )
        }
        for event in read_events(world):
            assert event["user_id"] == "ann"
            assert by_item[event["item_id"]] == (event["recommendation_id"], event["position"])


async def test_names_and_notations_of_other_versions(world):
    async with start(world, types={"click_through": "play", "add_to_cart": "like"}) as (client, _):
        events = [
            {**EVENT, "action_name": "click_through", "timestamp": "2026-06-13T20:20:39"},  # UTC
            {
                "action_name": "add_to_cart", "timestamp": 1_781_382_039_000, "application": "email",
                "event_attributes": {
                    "user_id": "bob", "object": {"object_id": 7}, "position": {"ordinal": {"index": 24}}, "value": 2.5,
                },
            },
            {
                **EVENT, "user_id": "carl",
                "event_attributes": {"object": {"object_id": "i1"}, "position": {"ordinal": 0}},
            },
        ]  # fmt: skip
        answer = (await client.post("/v1/ubi_events", json=events)).json()
        assert answer["accepted"] == 3
        assert answer["not_kept"]["event_attributes.position.ordinal that is not 1 to 10000"] == 1
        first, second, third = read_events(world)
        assert first["time"] == datetime(2026, 6, 13, 20, 20, 39, tzinfo=UTC).timestamp() * 1e6
        assert (first["type"], second["type"]) == ("play", "like")
        names = ("user_id", "item_id", "position", "value", "surface")
        assert [second[name] for name in names] == ["bob", "7", 24, 2.5, "email"]
        assert [third[name] for name in names] == ["carl", "i1", None, None, None]


BAD = {
    "no_user": ({**EVENT, "client_id": ""}, "no_user", "user_id"),
    "other_action": ({**EVENT, "action_name": "gaze"}, "unknown_event_type", "action_name"),
    "no_action": ({"timestamp": "2026-06-13T20:20:39Z"}, "invalid_event", "action_name"),
    "no_item": ({**EVENT, "event_attributes": {}}, "invalid_event", "event_attributes.object.object_id"),
    "no_object": ({**EVENT, "event_attributes": None}, "invalid_event", "event_attributes.object.object_id"),
    "list_as_id": ({**EVENT, "client_id": ["a"]}, "invalid_event", "client_id"),
    "long_query": ({**EVENT, "query_id": "q" * 65}, "invalid_event", "query_id"),
    "no_time": ({**EVENT, "timestamp": "soon"}, "invalid_event", "timestamp"),
    "text": ("event", "invalid_event", ""),
    "number": (3, "invalid_event", ""),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_event_is_rejected_by_its_index_and_ubi_s_name(world, kind):
    bad, code, field = BAD[kind]
    async with start(world) as (client, _):
        answer = await client.post("/v1/ubi_events", json=[EVENT, bad, {**EVENT, "user_id": "x"}])
        assert (answer.status_code, answer.json()["accepted"]) == (202, 2)
        (rejected,) = answer.json()["rejected"]
        assert (rejected["index"], rejected["code"], rejected["field"]) == (1, code, field)
        assert rejected["detail"].startswith(field)


@pytest.mark.parametrize("body", ["[]", '"text"', "3", "null"])
async def test_other_bodies_are_refused(world, body):
    async with start(world) as (client, _):
        assert (await client.post("/v1/ubi_events", content=body, headers=JSON)).status_code == 422


async def test_any_json_gets_an_answer(world):
    rng = np.random.default_rng(1)
    values = (
        None,
        True,
        0,
        -1,
        2**70,
        1e300,
        "",
        "a",
        "\x00",
        "like",
        [],
        ["a"],
        [[]],
        {},
        {"ordinal": []},
        {"object_id": {}},
    )
    names = (*EVENT, "extra", "\x00")

    def draw(names):
        return {name: values[rng.integers(len(values))] for name in names}

    async with start(world) as (client, _):
        for _ in range(40):
            events = [
                EVENT | draw(rng.choice(names, 3)) | {"event_attributes": draw(("object", "position", "value", "x"))}
                for _ in range(10)
            ]
            answer = await client.post("/v1/ubi_events", json=events)
            assert answer.status_code == 202
            found = answer.json()
            assert found["accepted"] + found["duplicates"] + len(found["rejected"]) == 10


async def test_a_widget_sends_events_of_its_own_user(world):
    async with start(world, access=AccessConfig(keys="required")) as (client, service):
        key, secret = create_key("page", "widget", ("events",), time.time_ns() // 1_000)
        service._events.log.put_key(key).result()
        service.access.follow_keys()
        token = jwt.encode({"sub": "ann", "exp": time.time() + 600}, secret, "HS256", headers={"kid": key.key_id})
        headers = {"Authorization": f"Bearer {token}"}
        own = {**EVENT, "user_id": "ann"}
        assert (await client.post("/v1/ubi_events", json=[own], headers=headers)).json()["accepted"] == 1
        for bad in ([own, {**own, "user_id": "bob"}], [EVENT], {**own, "user_id": None}):
            refused = await client.post("/v1/ubi_events", json=bad, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "other_user")
        assert (await client.post("/v1/ubi_events", json=[own])).status_code == 401
