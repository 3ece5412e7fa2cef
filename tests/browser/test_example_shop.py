"""The page of `make demo`: what a visitor sees and clicks there arrives in the store with the right positions."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from listening_shop import run_shop
from serving_world import write_world

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
PROGRAM = ROOT / "clients" / "web" / "demo" / "shop.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("example_shop", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def open_shop(program, world, url, port=0):
    """Serve the example shop in a thread; yields its address."""
    shop = program.ExampleShop(world.config, url)
    server = program.open_server(shop, port)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        shop.client.close()


def find_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def open_page(browser, address):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1_000)
    page.goto(address)
    page.locator("handsell-slate .link").first.wait_for()
    yield page
    context.close()


def wait_for_events(page, shop, wanted):
    """Return the stored events when those wanted are all there."""
    for _ in range(int(PATIENCE_S / 0.1)):
        found = shop.list_events()
        if wanted <= {(event["type"], event["position"]) for event in found}:
            return found
        page.wait_for_timeout(100)
    raise AssertionError(f"expected {wanted}, got {found}")


def test_views_and_clicks_of_the_demo_arrive_with_their_positions(world, program, browser):
    with run_shop(world) as shop, open_shop(program, world, shop.url) as address, open_page(browser, address) as page:
        page.get_by_label("Visitor").fill("u2")
        page.get_by_role("button", name="Change").click()
        page.locator("handsell-slate[user-id=u2] .link").first.wait_for()
        answer = page.locator("handsell-slate").evaluate("slate => slate.answer")
        page.locator("#log", has_text="viewed position 3").wait_for()
        page.locator("handsell-slate .link").nth(2).click()
        page.wait_for_url("**/item/*")
        title = answer["items"][2]["metadata"]["title"]
        page.get_by_role("heading", name=title, level=1).wait_for()
        page.get_by_role("button", name="Like", exact=True).click()
        page.locator("#log", has_text=f"Like: {title}").wait_for()
        found = wait_for_events(page, shop, {("impression", 3), ("play", 3), ("like", None)})
    by_rank = {item["rank"]: item["item_id"] for item in answer["items"]}
    of_slate = [event for event in found if event["recommendation_id"] == answer["recommendation_id"]]
    assert len(of_slate) > 3
    for event in of_slate:
        assert (event["user_id"], event["item_id"]) == ("u2", by_rank[event["position"]])
    [like] = [event for event in found if event["type"] == "like"]
    assert like["item_id"] == by_rank[3]
    assert len({event["event_id"] for event in found}) == len(found)


@pytest.mark.parametrize("is_listed", [True, False])
def test_with_a_widget_key_the_page_talks_to_the_service_itself(world, program, browser, monkeypatch, is_listed):
    port = find_free_port()
    origins = (f"http://127.0.0.1:{port if is_listed else 1}",)
    with run_shop(world, keys="required", cors_origins=origins) as shop:
        key, secret = shop.create_key("recommend", "events", kind="widget")
        monkeypatch.setenv("HANDSELL_API_KEY", shop.create_key("catalog")[1])
        monkeypatch.setenv("HANDSELL_WIDGET_KEY", f"{key.key_id}:{secret}")
        with open_shop(program, world, shop.url, port) as address:
            page, lines = browser.new_page(), []
            page.on("console", lambda line: lines.append(line.text))
            page.goto(address)
            if is_listed:
                page.locator("handsell-slate .link").nth(2).click()
                page.get_by_role("heading", level=1).filter(has_not_text="Welcome").wait_for()
                wait_for_events(page, shop, {("play", 3)})
            else:
                page.get_by_role("button", name="Try again").wait_for()
                assert any("access.cors_origins" in line for line in lines)
            page.close()


def test_every_file_that_a_page_names_is_there(world, program):
    with run_shop(world) as shop, open_shop(program, world, shop.url) as address:
        page = httpx.get(address).text
        files = re.findall(r'(?:href|src)="(/assets/[^"]+)"', page)
        kinds = {name: httpx.get(address + name).headers["content-type"] for name in files}
        assert kinds["/assets/icon.svg"] == "image/svg+xml" and len(kinds) == 4
        assert '<link rel="icon"' in page  # without it, browsers ask for /favicon.ico
        assert {httpx.get(address + name).status_code for name in files} == {200}


def test_the_program_says_where_it_is_and_what_is_wrong(world):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("DISPLAY", None)
    command = [sys.executable, str(PROGRAM), str(world.config.source), "--port", "0"]
    with run_shop(world) as shop:
        running = subprocess.Popen([*command, "--url", shop.url], stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert "The shop is at http://127.0.0.1:" in running.stdout.readline()
        finally:
            running.terminate()
            running.wait()
            running.stdout.close()
    ended = subprocess.run([*command, "--url", "http://127.0.0.1:1"], capture_output=True, text=True, env=environment)
    assert ended.returncode == 1 and ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
