"""The examples for web pages of docs/clients.md run in a browser as they are."""

from pathlib import Path

import pytest

from doc_blocks import list_blocks
from listening_shop import run_shop, sign_token
from serving_world import write_world

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
PATIENCE_MS = 60_000
BLOCKS = list_blocks(PAGE)
EXAMPLES = [text for language, text in BLOCKS if language == "html"]
[SCRIPT] = [text for language, text in BLOCKS if language == "js"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, pages):
    with run_shop(write_world(tmp_path_factory.mktemp("shop")), keys="required", cors_origins=(pages.origin,)) as shop:
        pages.texts["/token"] = [sign_token(*shop.create_key("recommend", "events", kind="widget"), "u1", 3_000)]
        yield shop


@pytest.fixture
def open_page(shop, pages, browser):
    """Function that shows an example; a page whose server forwards is played by a route with a token."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)

    def forward(route):
        headers = {**route.request.headers, "authorization": f"Bearer {pages.texts['/token'][0]}"}
        route.continue_(url=route.request.url.replace(pages.origin, shop.url), headers=headers)

    def show(text):
        page.route(f"{pages.origin}/v1/**", forward)
        pages.pages["/"] = f"<!doctype html><title>x</title>{text}".replace("https://recommend.example", shop.url)
        page.goto(pages.origin)
        return page

    yield show
    page.close()


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_show_a_slate(open_page, example):
    page = open_page(example)
    card = page.get_by_role("link").first
    card.wait_for()
    assert card.get_attribute("href").startswith("/item/i")
    assert page.get_by_role("heading", name="For you").is_visible()


def test_the_script_asks_and_sends(open_page, shop):
    page = open_page(f'<script type="module">{SCRIPT}\nwindow.isDone = true</script>')
    page.wait_for_function("window.isDone")
    [event] = [event for event in shop.list_events() if event["type"] == "like"]
    assert (event["user_id"], event["position"]) == ("u1", 1) and event["recommendation_id"]
