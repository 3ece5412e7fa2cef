"""Catalog changes in the service: what holds on every gateway and stage as soon as they have read the store.

The gateway and the stages have live catalogs of their own, as on several replicas.
"""

import contextlib
import time

import pytest

from handsell.bundles.live_catalog import ChangesNotRead
from handsell.core.paths import Layout
from handsell.events.live_catalog import FOLLOWER
from handsell.events.store.interface import CatalogChange, EventStoreError
from handsell.events.store.opening import open_writer
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http.schemas import RecommendationsBody
from serving_service import FailingStages, build_service, start_service
from serving_world import DAY_US, publish_other_bundle, write_world

HOME = "/v1/users/{}/recommendations?count=30"


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path, with_content=True)


@pytest.fixture(autouse=True)
def unfollowed(monkeypatch):
    """Without the thread, so that each test decides who has read what."""
    monkeypatch.setattr(FOLLOWER, "follow", lambda catalog: catalog)


class Shop:
    """A service with stages of their own, and the store's writer."""

    def __init__(self, client, service, stages):
        self.client, self.service, self.stages, self.writer = client, service, stages, service._events.log
        self.time = time.time_ns() // 1000

    def change(self, item_id, action, kind="item", **fields):
        """Append a change; nobody reads it."""
        self.writer.append_changes([CatalogChange(kind, item_id, action, fields, self.time)]).result()

    def read(self):
        self.service.bundle.catalog.read()
        self.stages._catalog.read()

    async def get(self, url, **params):
        answer = await self.client.get(url, params=params or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def list_ids(self, url, **params):
        return [item["item_id"] for item in (await self.get(url, **params))["items"]]

    async def slate(self, user="u1", **body):
        body = {"user_id": user, "count": 30, "surface": "email", **body}
        answer = await self.client.post("/v1/recommendations", json=body)
        assert answer.status_code == 200 and not answer.json()["degraded"], answer.text
        return answer.json()["items"]


@contextlib.asynccontextmanager
async def open_shop(world):
    async with start_service(world) as (client, service):
        stages = load_local_stages(open_bundle(str(world.config.source), "live"))
        service.bundle.stages = stages
        yield Shop(client, service, stages)


@pytest.fixture
async def shop(world):
    async with open_shop(world) as shop:
        yield shop


def put_like(world, item, **fields):
    """The fields of a new item with the attributes of one that exists."""
    row = world.snapshot.metadata.slice(item, 1).to_pylist()[0]
    return {
        "title": "New",
        "tags": row["tags"],
        "text": row["text"],
        "published_at": world.snapshot.as_of - DAY_US,
        **fields,
    }


async def test_a_deleted_item_is_shown_nowhere(shop, world):
    lists = ("/v1/popular", "/v1/trending", "/v1/items/i3/similar", HOME.format("u1"), HOME.format("nobody"))
    shown = {url: await shop.list_ids(url, count=30) for url in lists}
    gone = {i for ids in shown.values() for i in ids[:3]} - {"i3"}
    assert len(gone) >= 5
    for one in gone:
        shop.change(one, "delete")
    shop.read()
    for url in lists:
        assert not gone & set(await shop.list_ids(url, count=30)), url
    for stage in ("candidates", "ranking", "reranking"):
        shop.service.bundle.stages = FailingStages(world, stage)
        assert not gone & set(await shop.list_ids(HOME.format("u1")))
    shop.service.bundle.stages = shop.stages
    one = sorted(gone)[0]
    ranked = await shop.client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i3", one]})
    assert ranked.json()["unknown_item_ids"] == [one] and [i["item_id"] for i in ranked.json()["items"]] == ["i3"]
    assert (await shop.client.get(f"/v1/items/{one}/similar")).status_code == 404
    why = (await shop.get("/v1/explain", user_id="u1", item_id=one))["eligibility"]["removed_by"]
    assert {"filter": "unavailable", "detail": "it has been deleted"} in why


@pytest.mark.parametrize("behind", ["gateway", "stages"])
async def test_a_deleted_item_is_not_shown_while_one_of_both_has_not_read_the_change(shop, behind):
    first = (await shop.slate())[0]["item_id"]
    shop.change(first, "delete")
    (shop.stages._catalog if behind == "gateway" else shop.service.bundle.catalog).read()
    assert first not in [item["item_id"] for item in await shop.slate()]


async def test_a_deleted_item_that_is_put_again_comes_back_at_its_number(shop, world):
    first = (await shop.slate())[0]["item_id"]
    shop.change(first, "delete")
    shop.read()
    assert first not in [item["item_id"] for item in await shop.slate()]
    shop.change(first, "put", **put_like(world, int(first[1:])))
    shop.read()
    assert first in [item["item_id"] for item in await shop.slate()]
    assert len(shop.service.bundle.snapshot) == len(world.snapshot)


async def test_changed_columns_hold_for_filters_metadata_and_times(shop):
    one, other, third = [item["item_id"] for item in (await shop.slate())[:3]]
    shop.change(one, "patch", title="A rare name", tags=["unheard-of"])
    shop.change(other, "patch", expires_at=shop.service.bundle.clock.now() - 1)
    shop.change(third, "patch", available=False)
    shop.read()
    found = await shop.slate(filter="item.title == 'A rare name' and 'unheard-of' in item.tags", include=["metadata"])
    assert [item["item_id"] for item in found] == [one]
    assert found[0]["metadata"]["title"] == "A rare name" and found[0]["metadata"]["tags"] == ["unheard-of"]
    assert not {other, third} & {item["item_id"] for item in await shop.slate()}
    excluded = await shop.slate(exclude={"tags": ["unheard-of"]})
    assert one not in [item["item_id"] for item in excluded]
    blocked = await shop.client.put("/v1/users/u1/blocks", json={"tags": ["unheard-of"]})
    assert blocked.status_code == 200
    assert one not in [item["item_id"] for item in await shop.slate()]


async def test_a_new_item_is_recommended_similar_ranked_explained_and_logged(shop, world):
    liked = (await shop.slate("newcomer"))[0]["item_id"]
    twin = int(liked[1:])
    shop.change("new item", "put", **put_like(world, twin, title="Brand new"))
    shop.read()
    session = {"events": [{"type": "like", "item_id": liked}]}
    (mine,) = await shop.slate("newcomer", session=session, include=["metadata"], filter="item.title == 'Brand new'")
    assert mine["item_id"] == "new item" and mine["reason"]["code"] != "explore"
    assert mine["sources"] == ["content"] and mine["metadata"]["title"] == "Brand new"
    assert "new item" in await shop.list_ids(f"/v1/items/{liked}/similar", filter="item.title == 'Brand new'")
    neighbors = await shop.get("/v1/items/new%20item/similar", count=10)
    assert neighbors["items"] and not neighbors["degraded"] and "new item" not in neighbors["items"]
    assert any("content" in item["sources"] for item in neighbors["items"])
    ranked = (await shop.client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "new item"]})).json()
    assert {item["item_id"] for item in ranked["items"]} == {"i1", "new item"} and not ranked["degraded"]
    why = await shop.get("/v1/explain", user_id="u1", item_id="new item", surface="email")
    assert why["eligibility"]["eligible"] and not why["degraded"]
    await shop.service._impressions.close()
    logged = shop.service.bundle._users._reader.read_impressions(0)
    assert "new item" in logged["item_id"]


async def test_clicks_on_a_new_item_count_in_the_next_request(shop, world):
    shop.change("new item", "put", **put_like(world, 20))
    shop.read()
    before = await shop.slate("newcomer")
    event = {"type": "like", "item_id": "new item", "user_id": "newcomer"}
    done = await shop.client.post("/v1/events", json={"events": [event]})
    assert done.status_code == 202
    after = await shop.slate("newcomer")
    assert not any("content" in item["sources"] for item in before)
    assert sum("content" in item["sources"] for item in after) > 5
    assert "new item" not in await shop.list_ids(HOME.format("newcomer"))  # home does not repeat


@pytest.mark.parametrize("behind", ["gateway", "stages"])
async def test_numbers_that_a_replica_does_not_know_are_read_at_once(shop, world, behind):
    shop.change("new item", "put", **put_like(world, 20, tags=["red", "unheard-of"], creators=["c1", "someone new"]))
    ahead, late = shop.service.bundle.catalog, shop.stages._catalog
    if behind == "gateway":
        ahead, late = late, ahead
    ahead.read()
    if behind == "stages":
        session = {"events": [{"type": "like", "item_id": "new item"}]}
        slate = await shop.slate("newcomer", session=session)
        assert sum("content" in item["sources"] for item in slate) > 5
    else:
        session = {"events": [{"type": "like", "item_id": "i20"}]}
        slate = await shop.slate("newcomer", session=session, filter="item.title in ['New', 'Title 3']")
        assert "new item" in [item["item_id"] for item in slate]
    assert len(late.snapshot) == len(world.snapshot) + 1


@pytest.mark.parametrize("behind", ["gateway", "stages"])
async def test_without_the_store_unknown_numbers_are_left_out(shop, world, behind, monkeypatch):
    shop.change("new item", "put", **put_like(world, 20, tags=["red", "unheard-of"], creators=["c1", "someone new"]))
    ahead, late = shop.service.bundle.catalog, shop.stages._catalog
    if behind == "gateway":
        ahead, late = late, ahead
    ahead.read()

    def fail(*_):
        raise EventStoreError("the store does not answer")

    monkeypatch.setattr(late._reader, "read_changes", fail)
    events = [{"type": "like", "item_id": one} for one in ("new item", "i20")]
    slate = await shop.slate("newcomer", session={"events": events}, exclude={"tags": ["unheard-of"]})
    assert len(slate) == 30 and "new item" not in [item["item_id"] for item in slate]
    ranked = await shop.client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "new item"]})
    known = {"i1"} if behind == "stages" else {"i1", "new item"}
    assert ranked.status_code == 200 and {item["item_id"] for item in ranked.json()["items"]} <= known
    assert not ranked.json()["degraded"]


async def test_a_store_that_does_not_answer_leaves_the_last_version(shop, monkeypatch, caplog):
    one = (await shop.slate())[0]["item_id"]
    shop.change(one, "delete")
    shop.read()

    def fail(*_):
        raise EventStoreError("the store does not answer")

    catalog = shop.service.bundle.catalog
    monkeypatch.setattr(catalog._reader, "read_changes", fail)
    monkeypatch.setattr(FOLLOWER, "_catalogs", {catalog})
    for _ in range(3):
        FOLLOWER.read_all()
    assert sum("cannot be read" in record.message for record in caplog.records) == 1
    assert one not in [item["item_id"] for item in await shop.slate()]
    assert "handsell_catalog_changes_age_seconds" in (await shop.client.get("/metrics")).text


async def test_changes_survive_a_restart_and_hold_in_the_next_bundle(world):
    async with open_shop(world) as shop:
        first = (await shop.slate())[0]["item_id"]
        shop.change(first, "delete")
        shop.change("new item", "put", **put_like(world, 20))
        for bundle in (world.bundle, publish_other_bundle(world, seed=4)):
            again = build_service(world, LocalSink(shop.writer), bundle=bundle)
            assert again.bundle.snapshot.items.number(["new item"])[0] == len(world.snapshot)
            query = again.bundle.parser.parse_recommendations(RecommendationsBody(count=30), 0.0)
            popular = again.bundle.public_list("popular", query, False)
            assert first not in [item.item_id for item in popular]


async def test_a_bundle_is_not_opened_without_the_changes(world, monkeypatch):
    path = Layout(world.config.state).event_log
    with open_writer(world.config):
        pass
    path.write_bytes(b"no database at all" * 1000)
    monkeypatch.setattr("handsell.bundles.live_catalog.FIRST_READ_S", 0.1)
    with pytest.raises(ChangesNotRead, match="would show deleted items"):
        open_bundle(str(world.config.source), "live")
