"""GET /v1/explain: what it says of an item is what happened to it."""

import numpy as np
import pytest

from handsell.config import Config
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from serving_service import FailingStages, start_service
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
async def client(world):
    async with start_service(world) as (client, _):
        yield client


async def explain(client, item, user="u1", **more) -> dict:
    answer = await client.get("/v1/explain", params={"user_id": user, "item_id": item, "count": 6, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def slate(client, user="u1", n=6, **more) -> list[str]:
    answer = await client.get(f"/v1/users/{user}/recommendations", params={"count": n, **more})
    return [item["item_id"] for item in answer.json()["items"]]


async def test_of_every_item_it_says_rightly_whether_it_is_shown(client, world):
    shown, seen = await slate(client), set(world.rows["u1"]["seen_item_ids"])
    outcomes = set()
    for n in range(0, 120, 3):
        story = await explain(client, f"i{n}")
        outcomes.add(story["outcome"])
        assert (story["outcome"] == "shown") == (f"i{n}" in shown)
        if story["outcome"] == "shown":
            assert story["position"] == shown.index(f"i{n}") + 1 == story["reranking"]["place"]
        names = [removal["filter"] for removal in story["eligibility"]["removed_by"]]
        assert names == (["unavailable"] if n == 7 else []) + (["seen"] if f"i{n}" in seen else [])
        assert (story["outcome"] == "filtered") == bool(names) == (not story["eligibility"]["eligible"])
        if story["outcome"] == "below_the_slate":
            assert story["reranking"]["place"] > 6 and story["ranking"]["rank"] <= story["ranking"]["passed_on"]
        if story["outcome"] == "cut_by_ranking":
            assert story["ranking"]["rank"] > story["ranking"]["passed_on"] and story["reranking"] is None
    assert {"filtered", "below_the_slate", "cut_by_ranking"} <= outcomes


async def test_contributions_sum_to_the_score_and_carry_their_values(client):
    item = (await slate(client))[1]
    few, all_of_them = await explain(client, item, features=3), await explain(client, item, features=200)
    for ranking in (few["ranking"], all_of_them["ranking"]):
        listed = [c["contribution"] for c in ranking["contributions"]]
        assert ranking["base"] + sum(listed) + ranking["other_features"] == pytest.approx(
            ranking["raw_score"], abs=1e-4
        )
        assert [abs(c) for c in listed] == sorted((abs(c) for c in listed), reverse=True)
        assert ranking["score"] == pytest.approx(1 / (1 + np.exp(-ranking["raw_score"])), abs=2e-3)  # its calibration
    assert len(few["ranking"]["contributions"]) == 3 and all_of_them["ranking"]["other_features"] == 0
    values = {c["feature"]: c["value"] for c in all_of_them["ranking"]["contributions"]}
    sources = {s["source"]: s for s in all_of_them["candidates"]["sources"]}
    rank = sources["popularity"]["rank"]
    assert values["src_popularity_rank"] == rank - 1 and values["src_count"] == len(
        [s for s in sources.values() if s["outcome"] == "returned"]
    )


async def test_ranks_of_sources_are_a_sources_own(client, world):
    """Popularity's order is public; the items that u1 has seen do not count in a rank."""
    popular = [i["item_id"] for i in (await client.get("/v1/popular?count=30")).json()["items"]]
    fresh = [i for i in popular if i not in world.rows["u1"]["seen_item_ids"]]
    for place in (0, 3):
        source = (await explain(client, fresh[place]))["candidates"]["sources"][0]
        assert (source["source"], source["outcome"], source["rank"]) == ("popularity", "returned", place + 1)


async def test_beyond_what_is_asked_of_a_source_it_still_has_a_rank(tmp_path):
    world = write_world(tmp_path)
    source = world.config.source
    source.write_text(source.read_text() + "\n[retrieval.popularity]\nk = 5\n[retrieval.history]\nenabled = false\n")
    async with start_service(world) as (client, _):
        popular = [i["item_id"] for i in (await client.get("/v1/popular?count=30")).json()["items"]]
        stories = [await explain(client, i, user="new", surface="email") for i in popular[3:8]]
        told = [s["candidates"]["sources"][0] for s in stories]
        assert [s["rank"] for s in told] == [4, 5, 6, 7, 8]
        assert [s["outcome"] for s in told] == ["returned"] * 2 + ["beyond_k"] * 3
        assert [s["outcome"] for s in stories[2:]] == ["not_retrieved"] * 3
        assert stories[4]["ranking"]["as_if_candidate"] and stories[4]["candidates"]["rank"] is None


async def test_a_filter_is_named_with_what_it_says(client):
    story = await explain(client, "i4", user="u19", filter="'red' in item.tags")
    assert story["eligibility"]["removed_by"] == [
        {"filter": "request_filter", "detail": "does not pass the request's filter: 'red' in item.tags"}
    ]
    assert story["candidates"]["as_if_eligible"] and story["ranking"]["as_if_candidate"]


async def test_re_ranking_names_the_rule_that_moved_an_item(world):
    """With the preferences off nothing but the spacing of creators is left to move anything."""
    off = {"diversity": 0.0, "calibration": 0.0, "novelty": 0.0}
    reranking = world.config.reranking.model_copy(update={**off, "same_creator_gap": 3})
    config: Config = world.config.model_copy(update={"reranking": reranking})
    config._source = world.config.source
    opened = open_bundle(str(world.config.source), "live")
    object.__setattr__(opened, "config", config)
    async with start_service(world, config=config, stages=load_local_stages(opened)) as (client, _):
        stories = [await explain(client, i) for i in await slate(client, n=30)]
        moved = [s["reranking"] for s in stories if s["reranking"]["before"] != s["reranking"]["place"]]
        assert moved and all(r["moved_by"] == ["same_creator_gap"] for r in moved)
        assert all(r["place_without"]["same_creator_gap"] == r["before"] for r in moved)


async def test_unknown_items_are_404_and_unknown_users_a_cold_start(client):
    answer = await client.get("/v1/explain?user_id=u1&item_id=nothing-like-it")
    assert answer.status_code == 404 and answer.json()["errors"][0]["field"] == "item_id"
    assert (await explain(client, "i3", user="somebody-new"))["cold_start"]
    assert not (await explain(client, "i3"))["cold_start"]
    assert (await client.get("/v1/explain?item_id=i3")).json()["errors"][0]["field"] == "user_id"


@pytest.mark.parametrize("stage", ["candidates", "ranking", "reranking"])
async def test_a_stage_that_fails_is_named_and_the_rest_is_told(world, stage):
    stages = FailingStages(world)
    async with start_service(world, stages=stages) as (client, _):
        item = (await slate(client))[0]
        stages.failing = (stage,)
        story = await explain(client, item)
        assert story["outcome"] == "unknown" and story["degraded"] == [stage]
        told = {"candidates": [], "ranking": ["candidates"], "reranking": ["candidates", "ranking"]}[stage]
        assert [part for part in ("candidates", "ranking", "reranking") if story[part] is not None] == told


async def test_nothing_is_logged_as_shown(client, world):
    from handsell.events.store.opening import open_reader

    await explain(client, "i3")
    assert open_reader(world.config).read_impressions()["item_id"] == []
