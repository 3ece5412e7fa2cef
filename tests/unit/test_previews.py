"""Previews of slates: other bundles, arms, dials and imagined events, which leave no trace."""

from contextlib import closing

import pytest

from handsell.config import Arm, Experiment
from handsell.events.store.opening import open_reader
from handsell.reranking.rules.live_rules import CompiledRules
from handsell.serving.graph.stages import BundleNotHeld
from handsell.testing.rule_catalog import write_rule
from serving_service import load_world_bundle, start_service
from serving_world import publish_other_bundle, write_world

ARMS = {"control": Arm(share=0.5), "bold": Arm(share=0.5, reranking={"diversity": 0.9, "strength": 1.0})}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"), with_content=True)


class EmptyStages:
    """Stages of which none holds the bundle."""

    async def call(self, stage, operation, *args):
        raise BundleNotHeld(f"{stage} does not hold the bundle")


def list_ids(answer):
    return [item["item_id"] for item in answer["items"]]


async def preview(client, **params):
    response = await client.get("/v1/preview", params={"user_id": "u3", **params})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_preview_is_what_the_user_gets_and_leaves_no_trace(world):
    async with start_service(world) as (client, _):
        body = {"user_id": "u3", "include": ["metadata"]}
        shown = (await client.post("/v1/recommendations", json=body)).json()
        answer = await preview(client)
        assert list_ids(answer) == list_ids(shown)
        assert [item["reason"] for item in answer["items"]] == [item["reason"] for item in shown["items"]]
        assert answer["release"] == shown["release"] and answer["items"][0]["metadata"]["title"].startswith("Title")
        assert len(answer["history"]) == 10 and not any(event["imagined"] for event in answer["history"])
        times = [event["time"] for event in answer["history"]]
        assert times == sorted(times, reverse=True)
    with closing(open_reader(world.config)) as reader:
        impressions = reader.read_impressions()
    assert set(impressions["recommendation_id"]) == {shown["recommendation_id"]}


async def test_a_preview_follows_the_rules_and_counts_for_none(world, monkeypatch):
    counted = []
    monkeypatch.setattr(CompiledRules, "count", lambda self, requests, item: counted.append(item))
    async with start_service(world) as (client, _):
        first = list_ids(await preview(client))[0]
    path = world.config.source.with_name("rules.toml")
    path.write_text(write_rule("out", "exclude", items=f"item.item_id == '{first}'"))
    reranking = world.config.reranking.model_copy(update={"rules": path.name})
    async with start_service(world, config=world.config.model_copy(update={"reranking": reranking})) as (client, _):
        answer = await preview(client)
        assert first not in list_ids(answer) and answer["release"]["rules"] and not counted
        await client.post("/v1/recommendations", json={"user_id": "u3"})
        assert len(counted) == 1


async def test_imagined_events_change_the_slate_and_are_not_stored(world):
    async with start_service(world) as (client, _):
        before = await preview(client, user_id="nobody")
        events = [f"like:i{i}" for i in (61, 63, 65)]
        after = await preview(client, user_id="nobody", events=events)
        assert before["history"] == [] and list_ids(before) != list_ids(after)
        assert [(e["type"], e["item_id"], e["imagined"]) for e in after["history"]] == [
            ("like", "i65", True), ("like", "i63", True), ("like", "i61", True)
        ]  # fmt: skip
        assert not {"i61", "i63", "i65"} & set(list_ids(after))  # home repeats nothing
        again = await preview(client, user_id="nobody")
        assert list_ids(again) == list_ids(before)


async def test_similar_items_are_those_of_the_api_without_an_impression(world):
    async with start_service(world) as (client, _):
        shown = (await client.get("/v1/similar", params={"item_id": "i61", "filter": "'red' in item.tags"})).json()
        answer = await preview(client, similar_to="i61", filter="'red' in item.tags")
        assert list_ids(answer) == list_ids(shown) and [event["item_id"] for event in answer["history"]] == ["i61"]


async def test_the_dials_replace_the_settings(world):
    async with start_service(world) as (client, _):
        plain = await preview(client)
        calm, bold = await preview(client, diversity=0.0), await preview(client, diversity=0.95)
        assert plain["settings"] == {"diversity": 0.085, "novelty": 0.08, "exploration": 0.0}
        assert (calm["settings"]["diversity"], bold["settings"]["diversity"]) == (0.0, 0.95)
        assert calm["settings"]["novelty"] == plain["settings"]["novelty"]
        assert list_ids(calm) != list_ids(bold)
        assert (await preview(client, novelty=0.12345))["settings"]["novelty"] == 0.12
        explored = await preview(client, exploration=1.0)
        assert {i["rank"] for i in explored["items"] if i["reason"]["code"] == "explore"} == {5, 10}
        assert explored == await preview(client, exploration=1.0) | {"release": explored["release"]}


async def test_an_arm_and_a_bundle_can_be_named(world):
    other = publish_other_bundle(world, 5)
    config = world.config.model_copy(update={"experiments": {"bolder": Experiment(arms=ARMS)}})
    async with start_service(world, config=config) as (client, service):
        bold = await preview(client, arm="bolder.bold")
        assert bold["settings"]["diversity"] == 0.9 and bold["arms"] == {"bolder": "bold"}
        assert (await preview(client, arm="bolder.control"))["settings"]["diversity"] == 0.085
        refused = await client.get("/v1/preview", params={"user_id": "u3", "bundle": other})
        assert refused.status_code == 404 and refused.json()["code"] == "bundle_not_held"
        service.arm_bundles = {other: load_world_bundle(world, service.metrics, bundle=other)}
        live, named = await preview(client, bundle="live"), await preview(client, bundle=other)
        assert live["bundles"] == [world.bundle, other]
        assert (live["release"]["bundle"], named["release"]["bundle"]) == (world.bundle, other)
        assert list_ids(live) != list_ids(named)
        held = service.arm_bundles[other]
        held.stages, inner = EmptyStages(), held.stages
        waits = await client.get("/v1/preview", params={"user_id": "u3", "bundle": other})
        assert waits.status_code == 503 and "ask again in a moment" in waits.json()["detail"]
        held.stages = inner
        wrong = await client.get("/v1/preview", params={"user_id": "u3", "arm": "bolder.shy"})
        assert wrong.status_code == 422 and "got 'bolder.shy'" in wrong.json()["detail"]


async def test_the_explanation_is_that_of_the_previewed_slate(world):
    async with start_service(world) as (client, _):
        params = {"user_id": "nobody", "events": ["like:i61", "like:i63"], "diversity": 0.3}
        slate = await preview(client, **params)
        for item in slate["items"][:3]:
            found = await client.get("/v1/preview/explain", params={**params, "item_id": item["item_id"]})
            assert (found.json()["outcome"], found.json()["position"]) == ("shown", item["rank"])
            reason = {name: value for name, value in item["reason"].items() if name != "title"}  # that is metadata
            assert found.json()["reranking"]["reason"] == reason
        seen = await client.get("/v1/preview/explain", params={**params, "item_id": "i61"})
        assert seen.json()["outcome"] == "filtered"


@pytest.mark.parametrize("event", ["like", "like:", ":i61", "like=many:i61", "like=nan:i61"])
async def test_a_wrong_event_is_named(world, event):
    async with start_service(world) as (client, _):
        response = await client.get("/v1/preview", params={"user_id": "u3", "events": ["like:i1", event]})
        assert response.status_code == 422 and "events.1" in response.json()["detail"], response.text
