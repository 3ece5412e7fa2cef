"""Slates served over HTTP equal those of the funnel for the same request, in every topology."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from handsell.bundles.stages import load_stages
from handsell.bundles.store import BundleStore
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.features.request_builder import build_requests_from_rows
from handsell.features.served_log import FEATURE_LOG, read_feature_log
from impressions import wait_for_impression, wait_for_impressions


@pytest.fixture(scope="module")
def funnel(world):
    path = BundleStore(Layout(world.config.state).bundles).local_path(world.bundle)
    return load_stages(path, world.config)


def expected(funnel, world, user_id, time, n):
    """Compute the reference in this process: stored row → request → funnel."""
    rows = world.store().online_users([user_id])
    requests = build_requests_from_rows(
        rows, funnel.snapshot, world.config, time=np.array([time]), surface=np.zeros(1, np.int8)
    )
    slates = run_local(funnel.funnel.recommend(requests, n))
    return funnel.snapshot.items.ids(slates.item[0][slates.item[0] >= 0]), slates.score[0]


def test_stages_are_called_over_their_sockets(shop, request):
    def count(way):
        found = re.search(rf'^handsell_stage_calls_total\{{.*way="{way}".*\}} (\S+)$', shop.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    before = count("socket"), count("serve")
    for user in ("u1", "u2", "u3"):
        assert shop.get(f"/v1/users/{user}/recommendations").json()["degraded"] == []
    calls = 9 if request.node.callspec.params["shop"] == "graph" else 0
    assert (count("socket") - before[0], count("serve") - before[1]) == (calls, 0)


def test_the_served_slate_is_the_funnels(shop, world, funnel):
    for user in ("u1", "u2", "u3", "u4", "somebody_new"):
        answer = shop.get(f"/v1/users/{user}/recommendations?count=12").json()
        impression = wait_for_impression(world.config, answer["recommendation_id"])
        items, scores = expected(funnel, world, user, impression["time"][0], 12)
        assert [i["item_id"] for i in answer["items"]] == items
        assert [i["score"] for i in answer["items"]] == pytest.approx(scores.tolist(), abs=1e-5)
        assert impression["item_id"] == items and impression["position"] == list(range(1, 13))
        assert answer["degraded"] == [] and answer["cold_start"] == (user == "somebody_new")
        assert answer["release"]["bundle"] == world.bundle == impression["bundle"][0]


def test_concurrent_requests_get_the_same_slates_as_single_ones(shop, world, funnel):
    """Micro-batches with different users and lengths."""
    users = [f"u{i}" for i in range(18)] * 3
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda p: shop.get(f"/v1/users/{p[1]}/recommendations?count={3 + p[0] % 9}").json(), enumerate(users)
            )
        )
    impressions = wait_for_impressions(world.config, [answer["recommendation_id"] for answer in answers])
    for i, (user, answer) in enumerate(zip(users, answers, strict=True)):
        count = 3 + i % 9
        assert answer["degraded"] == []
        time = impressions[answer["recommendation_id"]]["time"][0]
        assert [x["item_id"] for x in answer["items"]] == expected(funnel, world, user, time, count)[0]


def test_the_users_next_request_sees_the_event(shop, request):
    user = f"visitor-{request.node.callspec.params['shop']}"
    before = shop.get(f"/v1/users/{user}/recommendations").json()
    assert before["cold_start"]
    event = {"event_id": f"{user}-1", "type": "like", "user_id": user, "item_id": before["items"][0]["item_id"]}
    stored = shop.post("/v1/events", json={"events": [event, {**event, "event_id": f"{user}-2", "type": "nonsense"}]})
    assert stored.status_code == 202
    assert stored.json()["accepted"] == 1 and stored.json()["rejected"][0]["index"] == 1
    assert shop.post("/v1/events", json={"events": [event]}).json()["duplicates"] == 1
    after = shop.get(f"/v1/users/{user}/recommendations").json()
    assert not after["cold_start"]
    assert event["item_id"] not in [i["item_id"] for i in after["items"]]  # home excludes what was seen


@pytest.mark.slow
def test_a_thousand_requests_without_a_degraded_response(shop):
    def ask(n):
        return shop.get(f"/v1/users/u{n % 20}/recommendations?count=5").json()["degraded"]

    with ThreadPoolExecutor(8) as pool:
        assert [d for d in pool.map(ask, range(1_000)) if d] == []
    text = shop.get("/metrics").text
    assert "handsell_batch_size_count" in text
    assert re.search(r'handsell_stage_seconds_count\{replica="\w+",stage="ranking"\}', text)


def test_served_vectors_are_those_of_the_reference(shop, world, funnel):
    answer = shop.get("/v1/users/u5/recommendations?count=5").json()
    found = read_feature_log(Layout(world.config.state).logs / FEATURE_LOG)
    at = [i for i, r in enumerate(found.recommendation_id) if r == answer["recommendation_id"]]
    assert at and found.names == funnel.ranking.ranker.features
    rows = world.store().online_users(["u5"])
    time = found.time[at[0]]
    requests = build_requests_from_rows(
        rows, funnel.snapshot, world.config, time=np.array([time]), surface=np.zeros(1, np.int8)
    )
    candidates = run_local(funnel.candidates.candidates(requests, world.config.retrieval.candidates))
    x = funnel.ranking.matrix(requests, candidates)[0]
    for i in at:
        column = np.flatnonzero(candidates.item[0] == funnel.snapshot.items.number([found.item_id[i]])[0])[0]
        np.testing.assert_allclose(found.vectors[i], x[column], rtol=1e-5, equal_nan=True)
        assert found.user_id[i] == "u5"


def test_invalid_input_is_refused_without_effect_on_other_requests(shop):
    for body, status in (
        (b'{"user_id": NaN}', 400),
        (b"[" * 100_000, 413),
        (b"\xff\xfe", 400),
        (b'{"count": 1e9}', 422),
    ):
        answer = shop.post("/v1/recommendations", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    assert json.loads(shop.get("/openapi.json").text)["info"]["title"] == "handsell"
    assert shop.get("/v1/users/u1/recommendations", headers={"x-request-timeout-seconds": "0"}).status_code == 200


def test_a_filter_reaches_every_stage(shop):
    """Concurrent requests with and without filters each get the items that their filter allows."""
    asked = ["'red' in item.tags", "not 'red' in item.tags", None, "item.item_id in ['i40', 'i41']"] * 4

    def one(text):
        body = {"user_id": "u19", "count": 8, "surface": "email"} | ({"filter": text} if text else {})
        answer = shop.post("/v1/recommendations", json=body).json()
        return answer["degraded"], [int(item["item_id"][1:]) for item in answer["items"]]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, asked))
    for (degraded, items), text in zip(answers, asked, strict=True):
        assert degraded == [] and len(items) == (2 if text == asked[3] else 8)
        if text in asked[:2]:
            assert all((item % 2 == 1) == (text == asked[0]) for item in items)
    assert sorted(answers[3][1]) == [40, 41]
    refused = shop.post("/v1/recommendations", json={"filter": "item.yeer > 1"})
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "filter"


def test_an_item_is_explained_as_it_was_served(shop):
    """Stage by stage, in every topology."""
    shown = [i["item_id"] for i in shop.get("/v1/users/u3/recommendations?count=5").json()["items"]]
    for place, item in enumerate(shown, start=1):
        story = shop.get("/v1/explain", params={"user_id": "u3", "item_id": item, "count": 5}).json()
        assert (story["outcome"], story["position"], story["degraded"]) == ("shown", place, [])
        assert story["ranking"]["contributions"] and story["candidates"]["sources"]
    story = shop.get("/v1/explain?user_id=u3&item_id=i7").json()
    assert story["outcome"] == "filtered" and story["eligibility"]["removed_by"][0]["filter"] == "unavailable"
