"""A service on PostgreSQL whose server is away or hangs: events get 503, recommendations are degraded and in time."""

import asyncio
import contextlib
import signal

import httpx
import pytest

from handsell.events.store.opening import STORE_VARIABLE, open_writer
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.http.api import build_api
from postgresql_server import PostgresServer, find_programs
from serving_service import build_service
from serving_world import write_world

EVENT = {"event_id": "e1", "type": "play", "user_id": "u1", "item_id": "i1"}


@pytest.fixture
def server():
    server = PostgresServer(find_programs(), "fsync=off")
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextlib.asynccontextmanager
async def start_service_on(server, tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, server.create_database())
    world = write_world(tmp_path)
    service = build_service(world, LocalSink(open_writer(world.config)))
    transport = httpx.ASGITransport(build_api(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client, service
    await service.close()


async def recommend(client):
    answer = await client.post("/v1/recommendations", json={"user_id": "u1", "count": 20})
    assert answer.status_code == 200
    return answer.json()


async def test_events_are_stored_and_seen_by_the_next_request(server, tmp_path, monkeypatch):
    async with start_service_on(server, tmp_path, monkeypatch) as (client, _):
        first = await recommend(client)
        assert first["degraded"] == []
        shown = first["items"][0]["item_id"]
        event = {**EVENT, "item_id": shown}
        answer = await client.post("/v1/events", json={"events": [event]})
        assert answer.status_code == 202 and answer.json()["accepted"] == 1
        assert (await client.post("/v1/events", json={"events": [event]})).json()["duplicates"] == 1
        assert shown not in [item["item_id"] for item in (await recommend(client))["items"]]
        assert (await client.put("/v1/users/u1/blocks", json={"tags": ["x"]})).status_code == 200
        assert (await client.get("/v1/users/u1/blocks")).json()["tags"] == ["x"]


async def test_without_the_server_events_get_503_and_recommendations_name_the_event_log(server, tmp_path, monkeypatch):
    async with start_service_on(server, tmp_path, monkeypatch) as (client, _):
        assert (await client.post("/v1/events", json={"events": [EVENT]})).status_code == 202
        assert (await client.get("/readyz")).json()["stages"]["event_log"] == "ok"
        server.stop("immediate")
        answers = await asyncio.gather(*(client.post("/v1/events", json={"events": [EVENT]}) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["retry-after"] for answer in answers)
        body = await recommend(client)
        assert "event_log" in body["degraded"] and "shown_and_blocked" in body["degraded"]
        assert (await client.post("/v1/recommendations", json={})).json()["items"]  # a visitor blocks nothing
        assert (await client.get("/v1/users/u1/blocks")).status_code == 503
        assert (await client.get("/readyz")).json()["stages"]["event_log"] == "missing"
        server.start()
        assert (await client.post("/v1/events", json={"events": [EVENT]})).json()["duplicates"] == 1
        assert (await recommend(client))["degraded"] == []


async def test_a_server_that_hangs_holds_up_nobody(server, tmp_path, monkeypatch):
    async with start_service_on(server, tmp_path, monkeypatch) as (client, _service):
        assert (await recommend(client))["degraded"] == []
        backends = server.find_processes()
        for process in backends:
            process.send_signal(signal.SIGSTOP)
        try:
            bodies = await asyncio.gather(*(recommend(client) for _ in range(3)))
            assert all("event_log" in body["degraded"] for body in bodies)
            assert (await client.get("/healthz")).status_code == 200
        finally:
            for process in backends:
                process.send_signal(signal.SIGCONT)
        for _ in range(100):  # until the circuit breaker's trial is answered
            if (await recommend(client))["degraded"] == []:
                return
            await asyncio.sleep(0.1)
        pytest.fail("the event store answers again, and its readers do not notice")


async def test_without_the_server_users_get_slates_without_what_they_block(server, tmp_path, monkeypatch):
    async with start_service_on(server, tmp_path, monkeypatch) as (client, service):
        (tmp_path / "other").mkdir()
        other = build_service(write_world(tmp_path / "other"), service._events)  # another gateway
        assert count_with_tag(service, await recommend(client), "t1") > 0
        assert (await client.put("/v1/users/u1/blocks", json={"tags": ["t1"]})).status_code == 200
        for _ in range(100):  # at once on this gateway, within seconds on the other
            if other.bundle._users._blocks.find("u1") is not None:
                break
            await asyncio.sleep(0.1)
        server.stop("immediate")
        transport = httpx.ASGITransport(build_api(other), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as another:
            for gateway in (client, another):
                body = await recommend(gateway)
                assert "shown_and_blocked" in body["degraded"] and body["items"]
                assert count_with_tag(service, body, "t1") == 0
        server.start()


def count_with_tag(service, body, tag):
    snapshot = service.bundle.snapshot
    items = snapshot.items.number([item["item_id"] for item in body["items"]])
    (number,) = snapshot.tags.number([tag])
    return sum(number in snapshot.item_tags.row(i) for i in items)
