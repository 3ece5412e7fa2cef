"""Every page of the console in a browser: accessible in light, dark and phone width, and without other hosts."""

import pytest

from console_app import run_console
from handsell.console.pages.registry import PAGES
from serving_world import write_world

LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}},
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_can_be_read_by_everybody(open_console_tab, look):
    tab = open_console_tab(**LOOKS[look])
    for name in [page.name for page in PAGES]:
        tab.open(f"/{name}")
        tab.page.locator("h1").first.wait_for()
        tab.page.locator(f".top nav a[aria-current=page][href$='/{name}']").wait_for()
        assert tab.find_serious() == [], name
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    assert tab.foreign == [] and tab.mistakes == []


def test_the_colors_switch_and_the_page_stays_where_it_is(open_console_tab):
    tab = open_console_tab(viewport={"width": 1280, "height": 900})
    tab.open("/explore?user=u3")
    background = "getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(background)
    tab.page.get_by_role("button", name="switch to light").click()
    tab.page.get_by_role("button", name="switch to dark").click()
    tab.page.get_by_role("button", name="switch to auto").wait_for()
    assert tab.page.evaluate(background) != light and tab.page.url.endswith("/explore?user=u3")


def test_the_keyboard_comes_to_the_content_first(open_console_tab):
    tab = open_console_tab()
    tab.open("/explore")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "content"


def test_a_link_from_elsewhere_finds_the_session_of_who_is_signed_in(browser, tmp_path):
    with run_console(write_world(tmp_path), keys="required") as (address, shop):
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{address}/explore?user=u3")
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("Expected an API key that is valid now").wait_for()
        page.get_by_label("API key").fill(shop.create_key("experiments")[1])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/console/explore?user=u3")
        page.goto("about:blank")
        page.set_content(f'<a href="{address}/explore?user=u4">look</a>')
        page.get_by_role("link").click()
        page.wait_for_url("**/console/explore?user=u4")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("API key").wait_for()
        page.close()
