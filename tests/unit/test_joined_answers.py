"""Requests for an answer that is being computed wait for it; each has an id and an impression of its own."""

import asyncio

import pytest

from handsell.core.errors import RequestError
from handsell.events.store.opening import open_reader
from handsell.reranking.config import RerankingConfig
from handsell.serving.http.schemas import RecommendationsBody
from handsell.serving.reuse.pending_answers import PendingAnswer
from serving_service import FailingStages, start_service
from serving_world import write_world

ASKED = {"user_id": "u1", "include": ["debug"]}


class HeldStages(FailingStages):
    """Stages whose candidates wait until they are let go; `batches` has the size of each call."""

    def __init__(self, world, *failing):
        super().__init__(world, *failing)
        self.gate, self.batches = asyncio.Event(), []

    async def call(self, stage, operation, *args):
        if stage == "candidates":
            self.batches.append(len(args[0]))
            await self.gate.wait()
        return await super().call(stage, operation, *args)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def config(world):
    """The config of the world, with a deadline that no request of a busy machine meets."""
    serving = world.config.serving.model_copy(update={"feature_log_share": 0.0, "deadline_ms": 60_000, "in_flight": 2})
    return world.config.model_copy(update={"serving": serving})


async def ask(client, stages, **changed) -> asyncio.Task:
    """Send a request that has got as far as it can when this returns."""
    task = asyncio.create_task(client.post("/v1/recommendations", json=ASKED | changed))
    seen = len(stages.batches)
    for _ in range(200):
        await asyncio.sleep(0.001)
        if len(stages.batches) > seen:
            break
    return task


async def read_answers(stages, *tasks) -> list[dict]:
    stages.gate.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.status_code for answer in answers] == [200] * len(tasks), answers[-1].text
    return [answer.json() for answer in answers]


async def test_one_computation_answers_two_concurrent_requests_and_each_is_logged(world, config):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, service):
        service.bundle._reuse._settle_s = 0.0  # as with stages that follow the catalog at once
        first, second = await read_answers(stages, await ask(client, stages), await ask(client, stages))
        assert stages.batches == [1]
        assert second["items"] == first["items"] and first["items"]
        assert first["debug"] == {"reused": "nothing", "age_ms": 0} and second["debug"]["reused"] == "slate"
        (third,) = await read_answers(stages, await ask(client, stages))
        assert third["debug"]["reused"] == "slate" and stages.batches == [1]
        ids = [answer["recommendation_id"] for answer in (first, second, third)]
        await asyncio.sleep(0.3)  # impressions are in the log
        reader = open_reader(world.config)
        shown = reader.read_impressions(0, 10)
        reader.close()
        assert set(shown["recommendation_id"]) == set(ids) and len(set(ids)) == 3
        text = (await client.get("/metrics")).text
        assert 'handsell_reused_slates_total{part="slate",surface="home"} 2.0' in text


async def test_two_requests_of_one_batch_are_computed_once(world, config):
    config = config.model_copy(update={"serving": config.serving.model_copy(update={"in_flight": 1})})
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, _):
        tasks = [await ask(client, stages, user_id=user) for user in ("u2", "u1", "u3", "u1")]
        _, first, other, second = await read_answers(stages, *tasks)
        assert stages.batches == [1, 2]  # u2, while the others wait; then u1 and u3
        assert second["items"] == first["items"] != other["items"]


@pytest.mark.parametrize("changed", [{"user_id": "u2"}, {"filter": "'red' in item.tags"}, {"surface": "similar"}])
async def test_a_request_for_something_else_does_not_wait(world, config, changed):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, _):
        tasks = [await ask(client, stages), await ask(client, stages, **changed)]
        assert stages.batches == [1, 1]
        answers = await read_answers(stages, *tasks)
        assert [answer["debug"]["reused"] for answer in answers] == ["nothing", "nothing"]


@pytest.mark.parametrize("what", ["event", "catalog"])
async def test_a_request_after_a_change_does_not_wait_for_an_answer_from_before(world, config, what):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, service):
        first = await ask(client, stages)
        if what == "event":
            event = {"type": "play", "item_id": "i5", "user_id": "u1"}
            assert (await client.post("/v1/events", json={"events": [event]})).status_code == 202
        else:
            assert (await client.patch("/v1/items/i9", json={"available": False})).status_code == 200
            service.bundle.catalog.read()  # as once a second
        second = await ask(client, stages)
        assert stages.batches == [1, 1]
        answers = await read_answers(stages, first, second)
        assert [answer["debug"]["reused"] for answer in answers] == ["nothing", "nothing"]


@pytest.mark.parametrize("same_batch", [False, True])
async def test_slates_with_exploration_are_drawn_for_each_request_from_candidates_computed_once(
    world, config, same_batch
):
    reranking = RerankingConfig.model_validate({"exploration": {"share": 0.5, "positions": (2, 4)}})
    serving = config.serving.model_copy(update={"in_flight": 1 if same_batch else 2})
    config = config.model_copy(update={"reranking": reranking, "serving": serving})
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, _):
        before = [await ask(client, stages, user_id="u2")] if same_batch else []
        tasks = [*before, *[await ask(client, stages) for _ in range(2)]]
        answers = await read_answers(stages, *tasks)
        assert stages.batches == [1] * (1 + same_batch)
        assert [answer["debug"]["reused"] for answer in answers[-2:]] == ["nothing", "candidates"]


async def test_a_shorter_list_of_the_same_request_shares_the_candidates(world, config):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, _):
        long, short = await read_answers(stages, await ask(client, stages), await ask(client, stages, count=3))
        assert stages.batches == [1] and short["debug"]["reused"] == "candidates"
        assert short["items"] == long["items"][:3] and len(short["items"]) == 3


async def test_who_waits_for_candidates_that_fail_computes_them(world, config):
    stages = HeldStages(world, "ranking")
    async with start_service(world, config=config, stages=stages) as (client, _):
        tasks = [await ask(client, stages), await ask(client, stages, count=3)]
        answers = await read_answers(stages, *tasks)
        assert [answer["degraded"] for answer in answers] == [["ranking"]] * 2 and stages.batches == [1, 1]


async def test_a_degraded_answer_reaches_all_that_wait_and_is_not_kept(world, config):
    stages = HeldStages(world, "ranking")
    async with start_service(world, config=config, stages=stages) as (client, _):
        first, second = await read_answers(stages, await ask(client, stages), await ask(client, stages))
        assert first["degraded"] == second["degraded"] == ["ranking"] and stages.batches == [1]
        stages.failing = ()
        (third,) = await read_answers(stages, await ask(client, stages))
        assert third["degraded"] == [] and stages.batches == [1, 1]


async def test_a_failure_reaches_all_that_wait(world, config):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, service):
        tasks = [await ask(client, stages), await ask(client, stages)]
        drop_deleted = service.bundle.drop_deleted

        async def fail(slates):
            raise RuntimeError("the slates cannot be read")

        service.bundle.drop_deleted = fail
        stages.gate.set()
        assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [500, 500]
        service.bundle.drop_deleted = drop_deleted
        (third,) = await read_answers(stages, await ask(client, stages))
        assert third["debug"]["reused"] == "nothing" and stages.batches == [1, 1]


@pytest.mark.parametrize("gone", [0, 1])
async def test_who_goes_leaves_the_answer_to_the_others(world, config, gone):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (_, service):
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(service.recommend(RecommendationsBody.model_validate(ASKED))))
            await asyncio.sleep(0.05)
        tasks[gone].cancel()
        await asyncio.sleep(0.01)
        stages.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(gone), asyncio.CancelledError)
        assert answers[0].items == answers[1].items and answers[0].items and stages.batches == [1]


async def test_who_waits_for_a_cancelled_batch_is_told_to_come_back(world, config):
    stages = HeldStages(world)
    async with start_service(world, config=config, stages=stages) as (client, service):
        tasks = [await ask(client, stages), await ask(client, stages)]
        for batch in list(service.bundle._slates._batches):
            batch.cancel()
        answers = await asyncio.gather(*tasks)
        assert [(a.status_code, a.json()["code"]) for a in answers] == [(503, "ending")] * 2


class Timed:
    """What a query says of its time."""

    def __init__(self, time: int, arrived: float, deadline_s: float):
        self.time, self.arrived, self.deadline_s = time, arrived, deadline_s


@pytest.mark.parametrize(
    ("query", "suits"),
    [
        (Timed(10, 5.0, 1.0), True),
        (Timed(19, 5.5, 0.5), True),
        (Timed(9, 5.0, 1.0), False),  # before the one that is being computed
        (Timed(20, 5.0, 1.0), False),  # reuse_seconds later
        (Timed(10, 5.5, 0.4), False),  # wants its answer sooner
    ],
)
def test_only_an_answer_of_the_right_time_is_waited_for(query, suits):
    assert PendingAnswer(Timed(10, 5.0, 1.0)).suits(query, lasts_us=10) is suits


async def test_a_failure_of_nobody_is_no_failure():
    pending, gone = PendingAnswer(Timed(0, 0.0, 1.0)), asyncio.get_running_loop().create_future()
    pending.waiting.append((Timed(0, 0.0, 1.0), gone))
    gone.cancel()
    pending.fail(RequestError("too late"))
    assert gone.cancelled()
