"""Pages of one feed never repeat an item and never skip one, also while models change; cursors cannot be made up."""

import asyncio
import base64

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handsell.core.errors import RequestError
from handsell.serving.http.paging import LONGEST, Feed
from handsell.serving.http.schemas import RecommendationsBody
from serving_service import FailingStages, load_world_bundle, start_service
from serving_world import publish_other_bundle, write_world

FEED = Feed.of("home", "u1", None)
NUMBERS = st.sets(st.integers(0, 2**31 - 1), max_size=300)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def bundles(world):
    return [world.bundle, *(publish_other_bundle(world, seed) for seed in (5, 6))]


@pytest.fixture
async def client(world):
    async with start_service(world) as (client, _):
        yield client


@given(NUMBERS | st.sets(st.integers(0, 5_000), max_size=1_500))
def test_a_cursor_gives_back_what_it_was_made_of(numbers):
    cursor = FEED.encode(np.array(list(numbers), np.int32))
    assert FEED.decode(cursor).tolist() == sorted(numbers)
    assert cursor.replace("-", "").replace("_", "").isalnum()


def test_the_longest_feed_of_the_largest_catalog_fits_into_a_request():
    numbers = np.linspace(0, 2**31 - 1, 1_500).astype(np.int32)
    assert len(FEED.encode(numbers)) < LONGEST + 1


@given(NUMBERS, st.data())
def test_a_changed_cursor_is_refused(numbers, data):
    raw = bytearray(base64.urlsafe_b64decode(FEED.encode(np.array(list(numbers), np.int32)) + "=="))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RequestError) as refused:
        FEED.decode(base64.urlsafe_b64encode(bytes(raw)).decode())
    assert (refused.value.field, refused.value.status, refused.value.code) == ("cursor", 422, "invalid_cursor")


@given(st.text(min_size=1, max_size=200))
def test_made_up_cursors_are_refused(text):
    with pytest.raises(RequestError):
        FEED.decode(text)


PAGES = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from(["stay", "stay", "turn", "act"])), min_size=40, max_size=40
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pages=PAGES, user=st.sampled_from(["u1", "u19", "somebody_new"]))
def test_pages_never_repeat_and_never_skip_while_models_change(world, bundles, pages, user):
    """At its end a feed has given everything that the service then finds for the user."""
    given, left = asyncio.run(walk(world, bundles, user, pages))
    assert len(given) == len(set(given)) > 20
    assert left == []


async def walk(world, bundles, user, pages):
    """The ids of all pages, and what a request finds that excludes them."""
    async with start_service(world) as (_, service):
        ids, cursor, turns = [], None, 0
        for count, what in pages:
            body = RecommendationsBody(user_id=user, count=count, cursor=cursor)
            answer = await service.recommend(body)
            page = [item.item_id for item in answer.items]
            ids += page
            cursor = answer.next_cursor
            if cursor is None:
                break
            assert len(page) == count
            if what == "turn":
                turns += 1
                service.switch_to(load_world_bundle(world, service.metrics, bundle=bundles[turns % 3]))
            if what == "act":
                from handsell.serving.http.schemas import Event, EventsBody

                await service.events(EventsBody(events=[Event(type="play", user_id=user, item_id=page[0])]))
        else:
            pages = [30] * 5  # to the end
            while cursor is not None:
                answer = await service.recommend(RecommendationsBody(user_id=user, count=30, cursor=cursor))
                ids += [item.item_id for item in answer.items]
                cursor = answer.next_cursor
        rest = RecommendationsBody(user_id=user, count=30, exclude={"item_ids": ids})
        return ids, (await service.recommend(rest)).items


async def test_a_feed_gives_every_eligible_item_that_anybody_touched(client, world):
    ids, cursor = [], ""
    while cursor is not None:
        params = {"count": 25, "surface": "email"} | ({"cursor": cursor} if cursor else {})
        answer = (await client.get("/v1/users/u2/recommendations", params=params)).json()
        ids += [item["item_id"] for item in answer["items"]]
        cursor = answer["next_cursor"]
    assert len(ids) == len(set(ids)) >= 115 and "i7" not in ids


async def test_similar_items_have_pages_too(client):
    first = (await client.get("/v1/items/i90/similar?count=5")).json()
    second = (await client.get("/v1/items/i90/similar", params={"count": 5, "cursor": first["next_cursor"]})).json()
    ids = [i["item_id"] for answer in (first, second) for i in answer["items"]]
    assert len(set(ids)) == 10 and "i90" not in ids
    foreign = await client.get("/v1/items/i91/similar", params={"cursor": first["next_cursor"]})
    assert foreign.status_code == 422 and foreign.json()["code"] == "foreign_cursor"


@pytest.mark.parametrize("other", [{"user_id": "u2"}, {"surface": "email"}, {"filter": "'red' in item.tags"}])
async def test_a_cursor_of_another_feed_is_refused(client, other):
    body = {"user_id": "u1", "count": 5}
    cursor = (await client.post("/v1/recommendations", json=body)).json()["next_cursor"]
    answer = await client.post("/v1/recommendations", json=body | other | {"cursor": cursor})
    assert answer.status_code == 422 and answer.json()["code"] == "foreign_cursor"
    assert answer.json()["errors"][0]["field"] == "cursor"
    assert (await client.post("/v1/recommendations", json=body | {"cursor": cursor, "count": 9})).status_code == 200


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "ä", "x" * 9_000, 7])
async def test_a_bad_cursor_is_a_problem_of_its_field(client, cursor):
    answer = await client.post("/v1/recommendations", json={"user_id": "u1", "cursor": cursor})
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "cursor"


async def test_a_feed_ends_where_it_is_full_and_not_because_a_stage_failed(world):
    config = world.config.model_copy(update={"serving": world.config.serving.model_copy(update={"max_feed": 12})})
    config._source = world.config.source
    stages = FailingStages(world)
    async with start_service(world, config=config, stages=stages) as (client, _):
        body = {"user_id": "u1", "count": 8}
        first = (await client.post("/v1/recommendations", json=body)).json()
        second = (await client.post("/v1/recommendations", json=body | {"cursor": first["next_cursor"]})).json()
        assert first["next_cursor"] and len(second["items"]) == 8 and second["next_cursor"] is None

        stages.failing = ("reranking",)
        few = body | {"filter": "item.item_id in ['i3', 'i40']", "surface": "email"}
        degraded = (await client.post("/v1/recommendations", json=few)).json()
        assert degraded["degraded"] == ["reranking"] and len(degraded["items"]) == 2 and degraded["next_cursor"]
