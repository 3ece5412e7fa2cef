"""Reused answers of the service: each has its own id and impression, and says that it was computed before."""

import asyncio
import json

import pytest

from handsell.events.store.opening import open_reader
from serving_service import start_service
from serving_world import PromptStore, write_world

ASKED = {"user_id": "u1", "include": ["debug"]}
ITEM = "/v1/items/i9"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


def change(world, surface=None, **serving):
    """The config of the world, whose requests are not logged for checks, with other settings."""
    config = world.config
    home = config.surfaces["home"].model_copy(update=surface or {})
    own = config.serving.model_copy(update={"feature_log_share": 0.0, **serving})
    return config.model_copy(update={"serving": own, "surfaces": {**config.surfaces, "home": home}})


async def ask(client, **changed):
    answer = await client.post("/v1/recommendations", json=ASKED | changed)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def read_reused(client) -> dict[str, float]:
    """The counter of reused slates by its labels."""
    lines = (await client.get("/metrics")).text.splitlines()
    return {
        labels: float(value)
        for labels, _, value in (line.rpartition(" ") for line in lines if "handsell_reused_slates_total{" in line)
    }


async def test_a_reused_answer_has_an_id_and_an_impression_of_its_own(world):
    async with start_service(world, config=change(world)) as (client, _):
        first, second = await ask(client), await ask(client)
        assert first["debug"] == {"reused": "nothing", "age_ms": 0}
        assert second["debug"]["reused"] == "slate" and second["debug"]["age_ms"] > 0
        assert second["items"] == first["items"] and second["next_cursor"] == first["next_cursor"]
        assert second["recommendation_id"] != first["recommendation_id"]
        assert "debug" not in (await client.get("/v1/users/u1/recommendations")).json()
        assert await read_reused(client) == {'handsell_reused_slates_total{part="slate",surface="home"}': 2.0}
        await asyncio.sleep(0.3)  # impressions are in the log
        reader = open_reader(world.config)
        shown = reader.read_impressions(0, 10)
        reader.close()
        ids = list(dict.fromkeys(shown["recommendation_id"]))
        assert ids[:2] == [first["recommendation_id"], second["recommendation_id"]] and len(ids) == 3
        rows = len(first["items"])
        for name in ("item_id", "score", "propensity", "sources"):
            assert shown[name][:rows] == shown[name][rows : 2 * rows] == shown[name][2 * rows :]


async def test_a_kept_answer_needs_no_batch_and_a_changed_user_gets_one(world, monkeypatch):
    store = PromptStore(world.config, world.rows)
    async with start_service(world, config=change(world), store=store) as (client, service):
        batches, submit = [], service.bundle._slates.submit
        monkeypatch.setattr(service.bundle._slates, "submit", lambda query: batches.append(query) or submit(query))
        plain = ASKED | {"include": []}
        bodies = [(await client.post("/v1/recommendations", json=plain)).json() for _ in range(3)]
        assert len(batches) == 1 and len({body.pop("recommendation_id") for body in bodies}) == 3
        assert bodies[0] == bodies[1] == bodies[2]
        event = {"events": [{"type": "play", "item_id": bodies[0]["items"][0]["item_id"], "user_id": "u1"}]}
        assert (await client.post("/v1/events", json=event)).status_code == 202
        assert (await ask(client))["debug"]["reused"] == "nothing" and len(batches) == 2
        assert (await ask(client))["debug"]["reused"] == "slate" and len(batches) == 2


async def test_a_list_of_similar_items_is_no_cold_start_also_where_a_visitor_shares_its_slate(world):
    async with start_service(world, config=change(world)) as (client, _):
        for _ in range(3):
            assert (await client.get("/v1/items/i9/similar")).json()["cold_start"] is False


def leave_out_metadata(item: dict) -> dict:
    """The item without its metadata, and without the title of the item that its reason names."""
    reason = {name: value for name, value in item["reason"].items() if name != "title"}
    return {**{name: value for name, value in item.items() if name != "metadata"}, "reason": reason}


async def test_answers_with_metadata_have_it_and_others_do_not(world):
    async with start_service(world, config=change(world)) as (client, _):
        plain, rich = await ask(client), await ask(client, include=["debug", "metadata"])
        assert rich["debug"]["reused"] == "slate"
        assert all("metadata" in item for item in rich["items"])
        assert [leave_out_metadata(item) for item in rich["items"]] == plain["items"]
        assert (await ask(client))["items"] == plain["items"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/events", {"events": [{"type": "play", "item_id": "i5", "user_id": "u1"}]}),
        ("PUT", "/v1/users/u1/blocks", {"tags": ["t1"], "creators": []}),
        ("PATCH", ITEM, {"available": False}),
        ("DELETE", ITEM, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_change_ends_reuse_at_once(world, method, path, body):
    async with start_service(world, config=change(world)) as (client, service):
        await ask(client)
        assert (await ask(client))["debug"]["reused"] == "slate"
        done = await client.request(method, path, json=body)
        assert done.status_code < 300, done.text
        service.bundle.catalog.read()  # as once a second
        assert (await ask(client))["debug"]["reused"] == "nothing"
        assert (await ask(client))["debug"]["reused"] == "slate"


async def test_visitors_without_a_past_share_an_answer_and_each_is_logged(world):
    async with start_service(world, config=change(world)) as (client, _):
        first = await ask(client, user_id="new1")
        second = await ask(client, user_id="new2")
        assert second["debug"]["reused"] == "slate" and second["items"] == first["items"]
        assert first["cold_start"] and second["cold_start"]


async def test_readiness_and_previews_neither_reuse_nor_are_kept(world):
    async with start_service(world, config=change(world)) as (client, _):
        for _ in range(2):
            assert (await client.get("/readyz")).status_code == 200
            found = await client.get("/v1/preview", params={"user_id": "u1"})
            assert found.status_code == 200, found.text
        assert (await ask(client))["debug"]["reused"] == "nothing"
        assert (await client.get("/v1/preview", params={"user_id": "u1"})).status_code == 200
        assert await read_reused(client) == {}


@pytest.mark.parametrize("off", [{"surface": {"reuse_seconds": 0}}, {"reuse_bytes": 0}, {"feature_log_share": 1.0}])
async def test_reuse_can_be_switched_off_and_leaves_sampled_requests_alone(world, off):
    async with start_service(world, config=change(world, **off)) as (client, _):
        for _ in range(2):
            assert (await ask(client))["debug"]["reused"] == "nothing"


async def test_an_item_that_ends_within_the_time_of_an_answer_is_not_shown_again(world):
    async with start_service(world, config=change(world)) as (client, service):
        shown = (await ask(client))["items"][0]["item_id"]
        snapshot = service.bundle.snapshot
        expires = snapshot.expires.copy()
        expires[snapshot.items.number([shown])[0]] = service.bundle.clock.now() - 1
        object.__setattr__(snapshot, "expires", expires)  # time goes by
        again = await ask(client)
        assert again["debug"]["reused"] == "candidates"
        assert shown not in {item["item_id"] for item in again["items"]}


async def test_a_degraded_answer_is_not_given_again(world):
    store = world.store()
    async with start_service(world, config=change(world), store=store) as (client, _):
        store.broken = True
        assert (await ask(client))["degraded"] == ["features"]
        assert (await ask(client))["debug"]["reused"] == "nothing"
        store.broken = False
        answer = await ask(client)
        assert answer["debug"]["reused"] == "nothing" and not answer["degraded"]
        assert json.dumps(answer["items"]) == json.dumps((await ask(client))["items"])
