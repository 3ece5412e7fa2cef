"""Filters of requests and of surfaces hold for every slate that the service returns."""

import asyncio
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.core.funnel import Funnel, run_local
from handsell.core.units import DAY_US
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.ranking.stage import FusedRanking
from handsell.reranking.stage import LocalReranking
from handsell.retrieval.models.popularity import Popularity
from handsell.retrieval.stage import LocalCandidates
from handsell.serving.graph.loading import load_popularity, open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.graph.stages import LocalStages
from handsell.testing.small_catalog import NOW, draw_requests, draw_snapshot
from serving_service import FailingStages, start_service
from serving_world import write_world

RED = "'red' in item.tags"  # items of odd number
FEW = "item.item_id in ['i3', 'i7', 'i40', 'i41', 'i90']"  # i7 is not available


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
async def client(world):
    async with start_service(world) as (client, _):
        yield client


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def is_red(item_id):
    return int(item_id[1:]) % 2 == 1


async def test_only_items_that_pass_are_shown_and_slates_are_full(client, world):
    for user in ("u1", "u2", "u19", "somebody_new"):
        seen = {*world.rows.get(user, {}).get("seen_item_ids", ())}
        body = {"user_id": user, "count": 12, "surface": "email", "filter": RED}
        answer = await client.post("/v1/recommendations", json=body)
        assert len(ids(answer)) == 12 and all(map(is_red, ids(answer))) and answer.json()["degraded"] == []
        got = await client.get(f"/v1/users/{user}/recommendations", params={"count": 30, "filter": RED})
        left = [i for i in range(1, 120, 2) if i != 7 and f"i{i}" not in seen]
        assert len(ids(got)) == min(30, len(left)) and not seen & {*ids(got)} and all(map(is_red, ids(got)))


async def test_if_few_items_pass_all_are_shown(client):
    answer = await client.post("/v1/recommendations", json={"user_id": "u1", "surface": "email", "filter": FEW})
    assert sorted(ids(answer)) == ["i3", "i40", "i41", "i90"]
    nothing = {"user_id": "u1", "surface": "email", "filter": "item.title == 'Title 7'"}
    assert ids(await client.post("/v1/recommendations", json=nothing)) == []


async def test_lists_and_similar_items_take_a_filter_too(client):
    for path in ("/v1/popular", "/v1/trending", "/v1/items/i2/similar"):
        found = ids(await client.get(path, params={"count": 20, "filter": RED}))
        assert len(found) > 3 and all(map(is_red, found)), path
        assert not all(map(is_red, ids(await client.get(f"{path}?count=20"))))


async def test_each_request_of_a_batch_has_its_own(client):
    """More at once than fit one trip: some share theirs with other filters, and with none."""
    asked = [RED, FEW, None, f"not {RED}", "item.title < 'Title 2'"] * 5

    async def one(text):
        body = {"user_id": "u19", "count": 8, "surface": "email"} | ({"filter": text} if text else {})
        return ids(await client.post("/v1/recommendations", json=body))

    together = await asyncio.gather(*map(one, asked))
    for text, found in zip(asked, together, strict=True):
        assert found == await one(text)
    assert all(map(is_red, together[0])) and not any(map(is_red, together[3]))
    assert {len(found) for found in together} == {4, 8}


@pytest.mark.parametrize("stage", ["candidates", "ranking", "reranking"])
async def test_a_filter_holds_without_a_stage(world, stage):
    async with start_service(world, stages=FailingStages(world, stage)) as (client, _):
        answer = await client.post("/v1/recommendations", json={"user_id": "u1", "surface": "email", "filter": FEW})
        assert {*ids(answer)} <= {"i3", "i40", "i41", "i90"} and len(ids(answer)) >= 4
        assert answer.json()["degraded"]


async def test_reranking_removes_items_that_do_not_pass(world):
    """Fail closed: candidates that were made without the filter."""
    opened = open_bundle(str(world.config.source), "live")
    stages = load_local_stages(opened)
    inner = stages.candidates

    class Careless:
        async def candidates(self, requests, k):
            return await inner.candidates(requests.with_filters([None] * len(requests)), k)

    careless = LocalStages(Careless(), stages.ranking, stages.reranking)
    async with start_service(world, stages=careless) as (client, _):
        answer = await client.post(
            "/v1/recommendations", json={"user_id": "u1", "surface": "email", "count": 20, "filter": RED}
        )
        assert ids(answer) and all(map(is_red, ids(answer)))


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "item.yeer >= 2015": ["column 1", "no item.yeer", "item.tags (list of texts)", "item.published_at (time)"],
        "item.tags > 3": ["column 1", "expected 'a' in item.tags", "got > 3"],
        "item.title = 'a'": ["column 12", "for equality write =="],
        "__import__('os').system('true')": ["column 11", "there are no functions"],
        "": ["at least 1 character"],
        "x" * 1_001: ["at most 1000 characters"],
        "(" * 500 + ")" * 500: ["column 501"],
    }.items(),
)  # fmt: skip
async def test_a_bad_filter_is_refused_by_field_and_column(client, text, words):
    posted = await client.post("/v1/recommendations", json={"user_id": "u1", "filter": text})
    got = [
        await client.get(path, params={"filter": text})
        for path in ("/v1/users/u1/recommendations", "/v1/items/i1/similar", "/v1/popular", "/v1/trending")
    ]
    for answer in (posted, *got):
        assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
        assert [e["field"] for e in answer.json()["errors"]] == ["filter"]
        assert all(word in answer.json()["detail"] for word in words), answer.json()["detail"]


async def test_the_filters_of_surface_and_request_both_apply(tmp_path):
    world = write_world(tmp_path)
    source = world.config.source
    source.write_text(source.read_text().replace("[surfaces.email]", f'[surfaces.email]\nfilter = "{RED}"'))
    async with start_service(world) as (client, _):
        assert all(map(is_red, ids(await client.get("/v1/users/u1/recommendations?surface=email&count=20"))))
        few = {"surface": "email", "filter": FEW}
        assert sorted(ids(await client.get("/v1/users/u1/recommendations", params=few))) == ["i3", "i41"]
        assert not all(map(is_red, ids(await client.get("/v1/users/u1/recommendations?count=20"))))
    source.write_text(source.read_text().replace(RED, "item.color == 'red'"))
    opened = open_bundle(str(source), "live")
    for load in (load_local_stages, load_popularity):
        with pytest.raises(ConfigError, match=r"surfaces\.email\.filter: column 1: there is no item\.color"):
            load(opened)


@pytest.mark.parametrize("touched", [True, False])
async def test_slates_are_full_if_one_item_in_a_thousand_passes(rng, touched):
    """Also where nobody has ever touched one of them, so that no source knows them: then the newest come first."""
    shelf = draw_snapshot(rng, 20_000)
    passing = np.arange(700, 20_000, 1_000)
    metadata = pa.table({"item_id": [f"i{i}" for i in range(20_000)], "shelf": np.arange(20_000) % 1_000})
    shelf = replace(shelf, metadata=metadata, published=np.minimum(shelf.published, NOW - DAY_US))
    popularity = rng.random(20_000, np.float32) + 0.1
    popularity[passing] *= touched
    eligibility = Eligibility(shelf, (Surface(repeat="allow"),))
    config = Config(name="test")
    stage = LocalCandidates({"popularity": Popularity(popularity)}, eligibility, config.retrieval)
    funnel = Funnel(stage, FusedRanking(), LocalReranking(shelf, eligibility, config))
    asked = draw_requests(rng, shelf, rows=3).with_filters(["item.shelf == 700", None, "item.shelf == 700"])
    slates = run_local(funnel.recommend(asked, 15))
    assert (slates.item >= 0).all() and slates.item.shape == (3, 15) and not slates.degraded
    assert np.isin(slates.item[[0, 2]], passing).all() and not np.isin(slates.item[1], passing).all()
    found = run_local(stage.candidates(asked, 1_000)).item
    expected = passing[np.argsort(-popularity[passing])] if touched else passing[::-1]
    assert found[0, :20].tolist() == expected.tolist() and (found[0, 20:] == -1).all()
