"""A stage that fails or is late is skipped and named in `degraded`; the client still gets a slate."""

import asyncio
import threading

import pytest

from handsell.core.errors import BundleError, FeatureError
from handsell.core.paths import Layout
from handsell.events.store.interface import EventStoreError
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.graph.loading import check_features, open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from serving_service import start_service
from serving_world import write_world


class Faulty:
    """Stages of which some raise, or answer after `delay_s`."""

    def __init__(self, world, broken=(), slow=(), delay_s=30.0):
        self.inner = load_local_stages(open_bundle(str(world.config.source), "live"))
        self.broken, self.slow, self.delay_s = broken, slow, delay_s

    async def call(self, stage, operation, *args):
        name = operation if isinstance(operation, str) else operation.__name__
        if name in self.broken:
            raise ConnectionError(f"{name} is gone")
        if name in self.slow:
            await asyncio.sleep(self.delay_s)
        return await self.inner.call(stage, operation, *args)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


def quick(world, ms=1_500, **more):
    serving = world.config.serving.model_copy(update={"deadline_ms": ms, **more})
    config = world.config.model_copy(update={"serving": serving})
    config._source = world.config.source
    return config


@pytest.mark.parametrize("stage", ["candidates", "ranking", "reranking"])
@pytest.mark.parametrize("how", ["broken", "slow"])
async def test_a_failed_or_late_stage_is_named(world, stage, how):
    method = {"candidates": "candidates", "ranking": "rank", "reranking": "rerank"}[stage]
    stages = Faulty(world, **{how: (method,)})
    async with start_service(world, stages=stages, config=quick(world)) as (client, _):
        started = asyncio.get_running_loop().time()
        answer = await client.get("/v1/users/u1/recommendations?count=10")
        assert asyncio.get_running_loop().time() - started < 5.0
        body = answer.json()
        assert answer.status_code == 200 and len(body["items"]) == 10
        assert body["degraded"] == [stage]
        assert not {"i7", *world.rows["u1"]["seen_item_ids"]} & {i["item_id"] for i in body["items"]}
        assert f'handsell_degraded_total{{cause="{stage}"}} 1.0' in (await client.get("/metrics")).text


async def test_an_unavailable_store_gives_default_features(world):
    store = world.store()
    store.broken = True
    async with start_service(world, store=store) as (client, _):
        body = (await client.get("/v1/users/u1/recommendations")).json()
        assert body["degraded"] == ["features"] and body["cold_start"] and len(body["items"]) == 10
        assert (await client.get("/readyz")).status_code == 503
        store.broken = False
        assert (await client.get("/v1/users/u1/recommendations")).json()["degraded"] == []
        assert (await client.get("/readyz")).status_code == 200
        store.broken = True
        ready = await client.get("/readyz")
        assert ready.status_code == 200 and ready.json()["stages"]["features"] == "missing"


async def test_rank_answers_without_its_ranker(world):
    async with start_service(world, stages=Faulty(world, broken=("rank",))) as (client, _):
        body = (await client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "i2", "i3"]})).json()
        assert body["degraded"] == ["ranking"] and len(body["items"]) == 3
    async with start_service(world, stages=Faulty(world, broken=("score_items",))) as (client, _):
        body = (await client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "i2", "i3"]})).json()
        assert "candidates" in body["degraded"] and len(body["items"]) == 3


async def test_overload_is_a_503_with_retry_after(world):
    async with start_service(world, stages=Faulty(world, slow=("candidates",), delay_s=0.3)) as (client, _):
        answers = await asyncio.gather(*(client.get("/v1/users/u1/recommendations") for _ in range(60)))
        refused = [a for a in answers if a.status_code == 503]
        assert refused and len(refused) < 60
        assert all(a.headers["retry-after"] == "1" and a.json()["code"] == "overloaded" for a in refused)
        assert {a.status_code for a in answers} == {200, 503}


async def test_events_that_cannot_be_stored_are_not_acknowledged(world, monkeypatch):
    async def full(self, events):
        raise EventStoreError("database or disk is full")

    monkeypatch.setattr(LocalSink, "append", full)
    async with start_service(world) as (client, _):
        event = {"event_id": "e1", "type": "play", "user_id": "u1", "item_id": "i1"}
        answer = await client.post("/v1/events", json={"events": [event]})
        assert answer.status_code == 503 and answer.headers["retry-after"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.get("/v1/users/u1/recommendations")).json()["degraded"] == []


def test_a_corrupt_bundle_is_refused_by_name(world, tmp_path):
    copy = write_world(tmp_path)
    path = Layout(copy.config.state).bundles / copy.bundle / "ranker" / "ranker.ubj"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BundleError, match=f"{copy.bundle}.*ranker.ubj.*truncated"):
        open_bundle(str(copy.config.source), "live")
    with pytest.raises(BundleError, match="nothing-like-it"):
        open_bundle(str(copy.config.source), "nothing-like-it")


def test_a_bundle_whose_features_are_missing_in_feast_is_refused_by_name(world):
    opened = open_bundle(str(world.config.source), "live")

    def check(service, names):
        raise FeatureError(f"service {service} lacks {names[0]}: restore it")

    with pytest.raises(BundleError, match=rf"bundle {world.bundle} is refused: service ranking_v1 lacks"):
        check_features(opened, check)


async def test_a_request_may_set_a_shorter_deadline_without_effect_on_others(world):
    """Re-ranking takes two seconds: a shorter deadline gives the ranking order; a longer one has no effect."""
    stages = Faulty(world, slow=("rerank",), delay_s=2.0)
    body = {"user_id": "u1", "count": 10}
    async with start_service(world, stages=stages, config=quick(world, 8_000, in_flight=6)) as (client, _):
        answers = await asyncio.gather(
            *(
                client.post("/v1/recommendations", json={**body, "deadline_ms": ms})
                for ms in (1_500, 8_000, 60_000, 1_500)
            ),
            client.post("/v1/recommendations", json=body),
            client.get("/v1/users/u1/recommendations?deadline_ms=1500"),
        )
        assert {a.status_code for a in answers} == {200}
        hurried, patient = [answers[i].json() for i in (0, 3, 5)], [answers[i].json() for i in (1, 2, 4)]
        assert all("reranking" in a["degraded"] and len(a["items"]) == 10 for a in hurried)
        assert all(a["degraded"] == [] for a in patient)
        wrong = await client.post("/v1/recommendations", json={**body, "deadline_ms": 0})
        assert wrong.status_code == 422 and "deadline_ms" in wrong.text


async def test_a_trace_is_continued(world):
    async with start_service(world) as (client, _):
        given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        answer = await client.get("/v1/users/u1/recommendations", headers={"traceparent": given})
        version, trace, span, flags = answer.headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", given.split("-")[1], "01") and span != given.split("-")[2]
        for wrong in ("", "nonsense", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", given.upper()):
            new = (await client.get("/healthz", headers={"traceparent": wrong})).headers["traceparent"]
            assert new.split("-")[1] != trace and len(new) == 55


class Halting:
    """Stages of which one method blocks while `halted`; counts its calls."""

    def __init__(self, world, name):
        self.inner, self.name = load_local_stages(open_bundle(str(world.config.source), "live")), name
        self.halted, self.reached = True, 0

    async def call(self, stage, operation, *args):
        if operation == self.name:
            self.reached += 1
            while self.halted:
                await asyncio.sleep(0.01)
        return await self.inner.call(stage, operation, *args)


@pytest.mark.parametrize("stage", ["candidates", "ranking", "reranking"])
async def test_a_blocked_stage_opens_the_circuit_breaker(world, stage):
    """After the first timeouts, requests skip the stage without waiting until it answers again."""
    stages = Halting(world, {"candidates": "candidates", "ranking": "rank", "reranking": "rerank"}[stage])
    async with start_service(world, stages=stages, config=quick(world)) as (client, _):
        answers = [await client.get("/v1/users/u1/recommendations?count=10") for _ in range(40)]
        assert {a.status_code for a in answers} == {200}
        assert all(a.json()["degraded"] == [stage] and len(a.json()["items"]) == 10 for a in answers)
        assert stages.reached < 20
        stages.halted = False
        for _ in range(200):
            if (await client.get("/v1/users/u1/recommendations")).json()["degraded"] == []:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("it answers again, and nobody asks it")


async def test_a_query_that_waited_for_a_blocked_stage_reads_its_features(world):
    """The first query holds the only slot for as long as features may take after the second one's arrival."""
    stages = Halting(world, "candidates")
    config = quick(world, in_flight=1, micro_batch=1)
    async with start_service(world, stages=stages, config=config) as (client, _):
        answers = await asyncio.gather(*(client.get("/v1/users/u1/recommendations") for _ in range(2)))
    assert [a.json()["degraded"] for a in answers] == [["candidates"]] * 2 and stages.reached == 2


async def test_a_blocked_store_is_flagged_and_read_again(world):
    """Its only thread is blocked in a read meanwhile."""
    store, free = world.store(), threading.Event()
    read = store.online_users
    store.online_users = lambda ids: free.wait(30) and read(ids)
    async with start_service(world, store=store, config=quick(world)) as (client, _):
        try:
            answers = [await client.get("/v1/users/u1/recommendations") for _ in range(40)]
            assert {a.status_code for a in answers} == {200}
            assert {tuple(a.json()["degraded"]) for a in answers} == {("features",)}
        finally:
            free.set()
        for _ in range(200):
            if (await client.get("/v1/users/u1/recommendations")).json()["degraded"] == []:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it answers again, and nobody asks it")
