"""The page `/docs` in a browser: it asks for a key, shows every endpoint and sends a request, to no other host."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from listening_shop import run_shop
from serving_world import write_world

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with run_shop(write_world(tmp_path_factory.mktemp("shop")), keys="required") as shop:
        yield shop


def test_the_page_shows_the_api_and_sends_a_request_with_the_key(shop, browser):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked, mistakes = set(), []
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("pageerror", lambda error: mistakes.append(error))
    page.on("console", lambda line: "Content Security" in line.text and mistakes.append(line.text))
    page.goto(f"{shop.url}/docs")
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Show the API").click()
    page.get_by_text("got one that is unknown").wait_for()
    page.get_by_label("API key").fill(shop.create_key("recommend")[1])
    page.keyboard.press("Enter")
    page.locator("#operations-recommend-popular_v1_popular_get").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table").get_by_text('"item_id"').first.wait_for()
    assert page.locator(".opblock").count() > 30
    assert asked == {shop.url.split("/")[2]} and not mistakes
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_our_part_of_the_page(shop, browser, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(f"{shop.url}/docs")
    page.get_by_label("API key").wait_for()
    found = Axe().run(page).response["violations"]
    page.close()
    assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]
