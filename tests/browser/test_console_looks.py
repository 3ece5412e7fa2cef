"""Every page of the console in a browser: accessible in light, dark and phone width, and without other hosts."""

import pytest

from handsell.console.pages.registry import PAGES

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
