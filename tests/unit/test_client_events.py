"""Events that the Python client delivers in the background: at least once, in order, and lost ones are reported."""

import subprocess
import sys
import threading
import time

import httpx
import pytest

from handsell.client import AsyncClient, Client, NoAnswer
from handsell.client.delivery import Delivery, DeliveryTerms
from handsell.client.errors import ClientError, EventQueueFull, EventRejected, InvalidRequest, make_problem
from listening_shop import run_shop
from scripted_network import CLICK, ScriptedNetwork, make_refusal
from serving_world import write_world

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def shop(world):
    with run_shop(world) as shop:
        yield shop


@pytest.fixture
def lost():
    return []


@pytest.fixture
def report(lost):
    return lambda events, error: lost.extend((event["item_id"], error) for event in events)


def track(client, *items):
    return [client.track(**{**CLICK, "item_id": item}) for item in items]


def test_events_arrive_in_order_and_in_batches(shop):
    network = ScriptedNetwork()
    with Client(shop.url, transport=network, flush_every_s=PATIENCE_S, batch_size=20) as client:
        ids = track(client, *(f"i{n}" for n in range(45)))
    assert [event["event_id"] for event in shop.list_events()] == ids
    assert len(network.requests) == 3


def test_events_are_sent_without_a_flush(shop):
    with Client(shop.url, flush_every_s=0.01) as client:
        track(client, "i1")
        until = time.monotonic() + PATIENCE_S
        while not shop.list_events():
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_flush_does_not_wait_for_a_full_batch(shop):
    with Client(shop.url, flush_every_s=PATIENCE_S) as client:
        track(client, "i1", "i2")
        assert client.flush(PATIENCE_S)
        assert len(shop.list_events()) == 2
        assert client.flush(0.0)  # nothing waits


def test_batches_whose_answers_are_lost_count_once(shop):
    faults = [httpx.ReadError("reset"), make_refusal(503, **{"Retry-After": "0"}), httpx.ReadTimeout("late")]
    with Client(shop.url, transport=ScriptedNetwork(*faults), batch_size=2, flush_every_s=0) as client:
        ids = track(client, "i1", "i2", "i3", "i4", "i5")
    assert [event["event_id"] for event in shop.list_events()] == ids


def test_many_threads_share_a_client(shop):
    with Client(shop.url, flush_every_s=0.01, batch_size=7) as client:
        threads = [threading.Thread(target=track, args=(client, *(f"i{n}" for n in range(30)))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({event["event_id"] for event in shop.list_events()}) == 120


def test_a_rejected_event_is_reported_and_its_neighbors_arrive(shop, lost, report):
    with Client(shop.url, on_lost=report) as client:
        client.track(**CLICK)
        client.track(**{**CLICK, "type": "stare", "item_id": "i9"})
        client.track(**{**CLICK, "item_id": "i4"})
    [(item, error)] = lost
    assert (item, error.field, error.code) == ("i9", "type", "unknown_event_type") and isinstance(error, EventRejected)
    assert "[events.types]" in str(error)
    assert [event["item_id"] for event in shop.list_events()] == ["i3", "i4"]


def test_a_batch_that_the_service_finds_too_large_is_halved(shop, lost, report):
    most = shop.service.config.serving.max_events
    with Client(shop.url, on_lost=report, batch_size=3 * most, flush_every_s=PATIENCE_S) as client:
        track(client, *(f"i{n % 100}" for n in range(3 * most)))
    assert (len(shop.list_events()), lost) == (3 * most, [])


def test_an_event_that_is_too_large_alone_is_lost_alone(shop, lost, report):
    with Client(shop.url, on_lost=report) as client:
        client.track(**{**CLICK, "item_id": "x" * 30_000})
        track(client, "i1")
    assert [type(error) for _, error in lost] == [InvalidRequest]
    assert [event["item_id"] for event in shop.list_events()] == ["i1"]


def test_an_event_that_is_no_json_is_reported(shop, lost, report):
    with Client(shop.url, on_lost=report) as client:
        client.track(**{**CLICK, "value": float("inf")})
        track(client, "i1")
    assert [type(error) for _, error in lost] == [ClientError] and len(shop.list_events()) == 1


def test_events_beyond_the_queue_and_those_of_a_closed_client_are_reported(lost, report):
    client = Client("http://127.0.0.1:1", queue_size=2, on_lost=report)
    track(client, "i1", "i2", "i3")
    assert [(item, type(error)) for item, error in lost] == [("i3", EventQueueFull)]
    client.close(timeout_s=0.1)
    assert [(item, type(error)) for item, error in lost[1:]] == [("i1", NoAnswer), ("i2", NoAnswer)]


def test_an_error_of_the_report_does_not_stop_the_delivery(shop):
    with Client(shop.url, on_lost=lambda *_: 1 / 0, flush_every_s=0) as client:
        client.track(**{**CLICK, "type": "stare"})
        client.flush(PATIENCE_S)
        track(client, "i1")
    assert len(shop.list_events()) == 1


def test_lost_events_are_logged_without_a_report(shop, caplog):
    with Client(shop.url) as client:
        client.track(**{**CLICK, "type": "stare"})
    assert "1 events are lost" in caplog.text and "unknown" not in caplog.text.split("because of")[0]


@pytest.mark.parametrize(
    ("status", "code", "headers", "left"),
    [(503, "x", {"retry-after": "7"}, 3), (429, "x", {"retry-after": "7"}, 3), (401, "key_invalid", {}, 3),
     (422, "x", {}, 0), (413, "x", {}, 3)],
)  # fmt: skip
def test_what_may_be_taken_later_stays_in_the_queue(status, code, headers, left):
    delivery = Delivery(DeliveryTerms(10, 1, 100), lambda *_: None)
    for item in "abc":
        delivery.add({"type": "play", "item_id": item})
    error = make_problem("POST /v1/events", status, headers, f'{{"status": {status}, "code": "{code}", "detail": ""}}')
    wait_s = delivery.settle(delivery.take(), error)
    assert delivery.added - delivery.settled == left
    assert wait_s >= 7 if headers else wait_s <= 0.1
    assert len(delivery.take()) == (1 if status == 413 else left)


async def test_the_asynchronous_client_delivers_too(shop, lost, report):
    async with AsyncClient(shop.url, on_lost=report, flush_every_s=PATIENCE_S, batch_size=20) as client:
        ids = [client.track(**{**CLICK, "item_id": f"i{n}"}) for n in range(25)]
        client.track(**{**CLICK, "type": "stare"})
        assert await client.flush(PATIENCE_S)
        assert [event["event_id"] for event in shop.list_events()] == ids
        ids.append(client.track(**CLICK))
    assert [event["event_id"] for event in shop.list_events()] == ids
    assert [error.code for _, error in lost] == ["unknown_event_type"]


async def test_the_asynchronous_client_reports_what_remains(lost, report):
    client = AsyncClient("http://127.0.0.1:1", on_lost=report)
    client.track(**CLICK)
    assert not await client.flush(0.1)
    await client.close(timeout_s=0.1)
    assert [type(error) for _, error in lost] == [NoAnswer]


def test_events_are_sent_when_a_program_ends_without_closing(shop):
    program = f"from handsell.client import Client; Client({shop.url!r}).track(**{CLICK!r})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S)
    assert len(shop.list_events()) == 1


def test_a_forked_process_has_a_queue_of_its_own(shop):
    program = f"""
import os, sys
from handsell.client import Client
client = Client({shop.url!r}, flush_every_s=60)
client.track(**{CLICK!r})
if (child := os.fork()) == 0:
    client.track(**{{**{CLICK!r}, "item_id": "i4"}})
    sys.exit()
os.waitpid(child, 0)
client.close()
"""
    ended = subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE_S, capture_output=True)
    assert [event["item_id"] for event in shop.list_events()] == ["i4", "i3"]
    assert ended.stderr == b""
