"""GET and POST /v1/onboarding: questions adapt to answers, and the first slate after them uses the answers."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.http.onboarding.question_selection import select_questions
from serving_service import start_service
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


async def ask(client, **parameters):
    found = (await client.get("/v1/onboarding", params=parameters)).json()
    return [item["item_id"] for item in found["items"]], found


async def test_questions_adapt_to_answers_in_events_and_none_comes_twice(world):
    async with start_service(world) as (client, _):
        asked, first = [], await ask(client, user_id="fresh", n=5)
        assert len(first[0]) == 5 and first[1]["answers"] == 0 and first[1]["degraded"] == []
        assert all(0 <= item["score"] <= 1 for item in first[1]["items"])
        for turn in range(3):
            (question,), found = await ask(client, user_id="fresh", n=1)
            assert question not in asked and found["answers"] == turn
            asked.append(question)
            event = {"type": "like", "user_id": "fresh", "item_id": question}
            assert (await client.post("/v1/events", json={"events": [event]})).status_code == 202
        ids, found = await ask(client, user_id="fresh", n=30)
        assert not set(ids) & set(asked) and len(ids) == 30 and found["answers"] == 3
        slates = [
            (await client.post("/v1/recommendations", json={"user_id": user, "count": 20})).json()
            for user in ("fresh", "nobody")
        ]
        assert [slate["cold_start"] for slate in slates] == [False, True]
        named = {item["reason"]["item_id"] for item in slates[0]["items"]} - {None}
        assert named and named <= set(asked)
        assert slates[0]["items"] != slates[1]["items"]
        assert "i7" not in ids  # not available


async def test_answers_in_the_request_count_like_those_of_a_session(world):
    async with start_service(world) as (client, _):
        first, _ = await ask(client, n=2)
        by_query, found = await ask(client, n=4, liked=first[:1], disliked=first[1:])
        assert found["answers"] == 2 and not set(first) & set(by_query)
        kinds = [{"type": kind, "item_id": item} for kind, item in zip(("like", "skip"), first, strict=True)]
        body = {"n": 4, "session": {"events": kinds}, "include": ["metadata"]}
        posted = (await client.post("/v1/onboarding", json=body)).json()
        assert [item["item_id"] for item in posted["items"]] == by_query and posted["items"][0]["metadata"]["title"]
        other, _ = await ask(client, n=4, exclude=first)  # asked, and not known
        assert not set(first) & set(other)


async def test_bad_parameters_are_refused_in_words(world):
    async with start_service(world) as (client, _):
        for parameters, field, words in (
            ({"n": 0}, "n", "greater than or equal to 1"),
            ({"n": "many"}, "n", "integer"),
            ({"surface": "moon"}, "surface", "expected to be one of"),
            ({"liked": ["i1"], "disliked": ["i1"]}, "disliked", "'i1' in both"),
            ({"filter": "item.nothing > 1"}, "filter", "nothing"),
            ({"like": "i1"}, "like", "not permitted"),
        ):
            answer = await client.get("/v1/onboarding", params=parameters)
            assert answer.status_code == 422, parameters
            (error,) = answer.json()["errors"]
            assert error["field"] == field and words in error["detail"], error
        assert (await client.post("/v1/onboarding", json={"n": 99})).status_code == 422


async def test_deleted_and_unavailable_items_are_never_asked_about(world):
    async with start_service(world) as (client, service):
        ids, _ = await ask(client, n=3)
        gone = await client.delete(f"/v1/items/{ids[0]}")
        hidden = await client.patch(f"/v1/items/{ids[1]}", json={"available": False})
        assert (gone.status_code, hidden.status_code) == (204, 200)
        service.bundle.catalog.read()
        later, _ = await ask(client, n=30)
        assert ids[2] in later and not set(ids[:2]) & set(later)
        none = await client.get("/v1/onboarding", params={"filter": "'unheard' in item.tags"})
        assert none.json()["items"] == []


async def test_blocked_creators_are_not_asked_about(world):
    async with start_service(world) as (client, _):
        ids, _ = await ask(client, user_id="choosy", n=1)
        creator = world.snapshot.creators.ids(world.snapshot.creator[world.snapshot.items.number(ids)])[0]
        await client.put("/v1/users/choosy/blocks", json={"creators": [creator]})
        later, _ = await ask(client, user_id="choosy", n=30)
        creators = world.snapshot.creator[world.snapshot.items.number(later)]
        assert creator not in world.snapshot.creators.ids(creators[creators >= 0])


async def test_a_bundle_without_a_model_asks_about_popular_items(world):
    opened = open_bundle(str(world.config.source), "live")
    async with start_service(world, stages=load_local_stages(opened)) as (client, service):
        service.bundle._question_model = None
        ids, found = await ask(client, n=4)
        popular = (await client.get("/v1/popular", params={"count": 4})).json()["items"]
        assert ids == [item["item_id"] for item in popular] and found["degraded"] == ["onboarding"]


async def test_questions_beyond_the_model_are_popular_items(world):
    async with start_service(world) as (_, service):
        bundle = service.bundle
        model = bundle._question_model
        small = replace(model, item=model.item[:2], like=model.like[:, :2], known=model.known[:2])
        query = bundle.parser.parse_explain(_parameters(), 0.0)
        requests = bundle._users.build_visitor_request(query)
        asked = select_questions(small, bundle._popular.items, requests, 6)
        assert len(set(asked.item.tolist())) == 6 and set(asked.item[:2]) == set(small.item)
        assert (np.diff(asked.information) <= 1e-9).all() and (asked.information[2:] == 0).all()


def _parameters():
    from handsell.serving.http.schemas import ExplainParameters

    return ExplainParameters(user_id="x", item_id="i1")
