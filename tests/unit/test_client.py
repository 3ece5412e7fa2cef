"""The Python client against a service in this process: answers, errors, retries and events."""

import inspect
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest

from handsell.client import AsyncClient, Client, ClientError, NoAnswer
from handsell.client.async_endpoints import AsyncEndpoints
from handsell.client.endpoints import Endpoints
from handsell.client.errors import AccessDenied, InvalidRequest, ServiceFailed, TooManyRequests, UnknownObject
from listening_shop import run_shop
from scripted_network import CLICK, ScriptedNetwork, make_refusal
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def shop(world):
    with run_shop(world) as shop:
        yield shop


@pytest.fixture
def client(shop):
    with Client(shop.url) as client:
        yield client


def test_importing_the_client_imports_nothing_heavy():
    heavy = "('numpy', 'torch', 'ray', 'pydantic', 'httpx', 'asyncio', 'fastapi', 'pyarrow', 'handsell.config')"
    program = f"import handsell.client, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_operation_answers(client):
    slate = client.recommend(user_id="u1", count=3, include=["metadata"])
    assert [item["rank"] for item in slate["items"]] == [1, 2, 3] and "title" in slate["items"][0]["metadata"]
    assert len(client.similar(item_id="i3", count=2)["items"]) == 2
    assert client.popular(count=1)["items"] and client.trending(count=1)["release"]
    assert client.rank(user_id="u1", item_ids=["i1", "i2"])["unknown_item_ids"] == []
    assert client.explain(user_id="u1", item_id="i3")["outcome"]
    assert len(client.onboarding(n=2)["items"]) == 2
    assert client.put_item("a/b ü", {"title": "New", "price": 9.5})["title"] == "New"
    assert client.patch_item("a/b ü", {"price": None}).get("price") is None
    assert client.get_item("a/b ü")["item_id"] == "a/b ü"
    assert client.delete_item("a/b ü") is None
    assert client.put_items(items=[{"item_id": "x1"}, {"title": "no id"}])["rejected"][0]["index"] == 1
    assert client.put_user("u9", {"country": "NO"})["user_id"] == "u9"
    assert client.patch_user("u9", {"country": None}) and client.get_user("u9") and client.delete_user("u9") is None
    assert client.put_users(users=[{"user_id": "u8"}])["accepted"] == 1
    assert client.merge(visitor_id="cookie", user_id="u77")["user_id"] == "u77"
    assert client.put_blocks("u1", creators=["c1"])["creators"] == ["c1"]
    assert client.get_blocks("u1")["creators"] == ["c1"] and client.delete_blocks("u1")["creators"] == []
    assert client.delete_user("u77", erase=True)["status"] == "pending"
    assert client.ready()["status"] == "ready"


async def test_both_clients_have_the_same_operations_and_answers(shop):
    methods = {name: inspect.signature(getattr(Endpoints, name)) for name in vars(Endpoints) if name[0] != "_"}
    assert methods == {
        name: inspect.signature(getattr(AsyncEndpoints, name)) for name in vars(AsyncEndpoints) if name[0] != "_"
    }
    async with AsyncClient(shop.url) as client:
        slate = await client.recommend(user_id="u1", count=3)
    with Client(shop.url) as client:
        assert client.recommend(user_id="u1", count=3).keys() == slate.keys()


def test_an_error_names_field_and_remedy(client):
    with pytest.raises(InvalidRequest) as found:
        client.recommend(user_id="u1", count=99)
    assert (found.value.field, found.value.code) == ("count", "invalid_request")
    assert "less than or equal to 30" in str(found.value) and "correct the field" in str(found.value)
    with pytest.raises(UnknownObject, match="PUT adds it"):
        client.get_item("nothing")
    with pytest.raises(ClientError, match="expected values of JSON"):
        client.put_item("i1", {"price": float("nan")})


@pytest.mark.parametrize("arguments", [{"url": "shop:8000"}, {"key": "a\nb"}, {"timeout_s": 0}, {"batch_size": 0}])
def test_a_client_that_cannot_work_is_refused_in_words(arguments):
    with pytest.raises(ClientError, match="expected"):
        Client(**{"url": "http://127.0.0.1:1", **arguments})


def test_a_key_is_sent_and_never_shown(world, monkeypatch):
    with run_shop(world, keys="required") as shop:
        _, text = shop.create_key("recommend")
        with Client(shop.url) as client, pytest.raises(AccessDenied, match="HANDSELL_API_KEY"):
            client.recommend(user_id="u1")
        with Client(shop.url, key=text) as client:
            assert client.recommend(user_id="u1")["items"]
            with pytest.raises(AccessDenied, match="scope events") as found:
                client.send_events([CLICK])
            assert text not in repr(client) + str(found.value)
        monkeypatch.setenv("HANDSELL_API_KEY", text)
        with Client(shop.url) as client:
            assert client.popular()["items"]


# -- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [httpx.ReadError("reset"), httpx.ReadTimeout("late"), make_refusal(503), make_refusal(502)]
)
def test_a_failed_call_is_sent_again(shop, fault):
    network = ScriptedNetwork(fault)
    with Client(shop.url, transport=network) as client:
        assert client.recommend(user_id="u1")["items"]
    assert len(network.requests) == 2


def test_a_service_that_stays_away_is_reported_after_the_retries():
    with Client("http://127.0.0.1:1", retries=2) as client, pytest.raises(NoAnswer, match="check the address"):
        client.ready()
    network = ScriptedNetwork(*[make_refusal(503)] * 9)
    with Client("http://127.0.0.1:1", retries=2, transport=network) as client, pytest.raises(ServiceFailed):
        client.ready()
    assert len(network.requests) == 3


def test_the_wait_that_the_service_asks_for_is_kept(shop, monkeypatch):
    waits = []
    monkeypatch.setattr("handsell.client.sync_client.time", SimpleNamespace(sleep=waits.append))
    with Client(
        shop.url, transport=ScriptedNetwork(make_refusal(429, "rate_limited", **{"Retry-After": "3"}))
    ) as client:
        assert client.popular()["items"]
    assert waits == [3.0]
    network = ScriptedNetwork(make_refusal(429, "quota_exceeded", **{"Retry-After": "30000"}))
    with Client(shop.url, transport=network) as client, pytest.raises(TooManyRequests, match="--quota") as found:
        client.popular()
    assert (waits, found.value.retry_after_s) == ([3.0], 30_000)


def test_a_wrong_request_is_not_sent_again(shop):
    network = ScriptedNetwork()
    with Client(shop.url, transport=network) as client, pytest.raises(InvalidRequest):
        client.recommend(surface="nowhere")
    assert len(network.requests) == 1


def test_a_delete_whose_answer_was_lost_has_deleted(shop):
    with Client(shop.url) as client:
        client.put_item("gone", {"title": "x"})
    with Client(shop.url, transport=ScriptedNetwork(httpx.ReadError("reset"))) as client:
        assert client.delete_item("gone") is None
    with Client(shop.url) as client, pytest.raises(UnknownObject):
        client.delete_item("gone")


def test_a_page_of_a_proxy_is_quoted(shop):
    page = httpx.Response(502, text="<html>Bad\n gateway</html>")
    with Client(shop.url, retries=0, transport=ScriptedNetwork(page)) as client, pytest.raises(ServiceFailed) as found:
        client.popular()
    assert "'<html>Bad gateway</html>'" in str(found.value)
    with Client(shop.url, retries=0, transport=ScriptedNetwork(httpx.Response(200, text="hello"))) as client:  # noqa: SIM117
        with pytest.raises(NoAnswer, match="expected JSON, got 'hello'"):
            client.popular()


def test_events_whose_answer_was_lost_count_once(world):
    with run_shop(world) as shop:
        with Client(shop.url, transport=ScriptedNetwork(httpx.ReadError("reset"))) as client:
            answer = client.send_events([CLICK, {**CLICK, "item_id": "i4", "event_id": "mine"}])
        assert (answer["accepted"], answer["duplicates"]) == (0, 2)
        assert [event["item_id"] for event in shop.list_events()] == ["i3", "i4"]
        with Client(shop.url) as client:
            assert client.send_events([{**CLICK, "item_id": "i4", "event_id": "mine"}])["duplicates"] == 1
