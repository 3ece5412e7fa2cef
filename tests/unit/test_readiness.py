"""Calls to the service: what another program answers, addresses and proxies that cannot be used."""

import pytest

from handsell.console.config import ConsoleConfig
from handsell.core.errors import HandsellError
from handsell.local import service
from played_service import played_service

ANSWERS = [(200, {}), (200, []), (200, None), (200, {"release": None}), (200, {"release": "x"}), (404, {"a": 1})]


@pytest.fixture
def shop(configured, monkeypatch):
    """Function that returns the config of a service on a port; `b1` is its live bundle."""
    monkeypatch.setattr(service, "resolve_bundle", lambda *_: "b1")
    monkeypatch.setattr(service, "READY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(service, "SWITCH_TIMEOUT_S", 0.1)
    return lambda port: configured(f'name = "shop"\n[serving]\nport = {port}')


@pytest.mark.parametrize("answer", ANSWERS)
def test_another_program_at_the_address_is_not_the_service(shop, answer):
    with played_service(lambda *_: answer) as (port, _), pytest.raises(HandsellError, match="the service is not ready"):
        service.wait_until_ready(shop(port))


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_switch_is_awaited_from_the_service_alone(shop, answer):
    with played_service(lambda *_: answer) as (port, _):
        try:
            assert "no service is running" in service.wait_for_switch(shop(port), "b1")
        except HandsellError as error:
            assert "did not switch to b1" in str(error)


def test_the_served_and_the_refused_bundle_are_recognized(shop):
    answer = {"release": {"bundle": "b1"}, "refused": {"bundle": "b2", "reason": "it is broken"}}
    with played_service(lambda *_: (200, answer)) as (port, _):
        assert service.wait_until_ready(shop(port)) == "ready, serving bundle b1"
        assert "served by" in service.wait_for_switch(shop(port), "b1")
        with pytest.raises(HandsellError, match="continues with b1: it is broken"):
            service.wait_for_switch(shop(port), "b2")


def test_the_console_is_awaited_but_not_needed(shop, monkeypatch):
    monkeypatch.setattr(service, "CONSOLE_TIMEOUT_S", 0.1)
    for status, text in ((200, "console at http://127.0.0.1:"), (404, "does not answer yet")):
        with played_service(lambda *_, status=status: (status, {})) as (port, _):
            assert text in service.wait_for_console(shop(port))
    without = shop(port).model_copy(update={"console": ConsoleConfig(enabled=False)})
    assert service.wait_for_console(without) == "without a console"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://[::1", "http://", "ftp://shop", "http://shop:port", "\0"])
def test_an_address_that_is_no_url_is_one_sentence(url):
    with pytest.raises(HandsellError, match="cannot use the address") as raised:
        service.open_client(url)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://[::1"])
def test_no_proxy_of_the_environment_is_needed_for_this_machine(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    service.open_client("http://127.0.0.1:8000").close()
    service.open_client("http://shop.example", is_local=True).close()
    with pytest.raises(HandsellError, match="proxies of the environment"):
        service.open_client("http://shop.example")
