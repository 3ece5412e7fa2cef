"""Catalog and Rules in a browser: search while typing, an edit, a rule from a form to the served file and back."""

import time
from dataclasses import replace

import pytest

from console_app import run_console
from handsell.config import load_config
from handsell.console import background_commands
from handsell.testing.rule_catalog import write_rule
from serving_world import write_world

WIDE = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def console_shop(tmp_path_factory):
    """A shop with a file of rules, which the tests change."""
    world = write_world(tmp_path_factory.mktemp("shop"))
    path = world.config.source
    path.write_text(path.read_text() + '[reranking]\nrules = "rules.toml"\n')
    (path.parent / "rules.toml").write_text(write_rule("no_five", "exclude", items="item.item_id == 'i5'"))
    with run_console(replace(world, config=load_config(path))) as found:
        yield found


@pytest.fixture
def previews(monkeypatch):
    """Previews answer at once with lists that do not change."""
    asked, nobody = [], {"winners": [], "losers": []}

    async def call(arguments):
        asked.append(arguments)
        return {
            "requests": 50, "recorded": True, "changed_slates": 0, "mean_score": {"before": 0, "after": 0, "loss": 0},
            "by_rule": [], "items": nobody, "creators": nobody, "slates": [],
        }  # fmt: skip

    monkeypatch.setattr(background_commands, "_call", call)
    return asked


def hold(route):
    time.sleep(0.6)  # longer than the page waits for the next letter
    route.continue_()


def test_typing_searches_and_an_item_is_switched_off(open_console_tab):
    tab = open_console_tab(**WIDE)
    tab.open("/catalog")
    assert tab.page.locator("#results h2").count() == 25
    tab.page.route("**/catalog?*", hold)  # Enter is faster than an answer
    tab.page.get_by_label("Words of the title").press_sequentially("title 11")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#results").get_by_text("11 items").wait_for()
    tab.page.wait_for_url(lambda url: "q=title%2011" in url)  # the address says it all
    tab.page.unroute("**/catalog?*")
    tab.page.get_by_label("Show").select_option("off")
    tab.page.get_by_text("No item matches").wait_for()
    tab.page.go_back()
    tab.page.locator("#results").get_by_text("11 items").wait_for()
    tab.page.get_by_role("link", name="Title 112").click()
    tab.page.get_by_text("Not shown in the last 28 days").wait_for()
    assert tab.page.get_by_label("Recommend this item").is_disabled() and tab.find_serious() == []
    tab.page.get_by_role("switch").click()
    tab.page.get_by_label("Recommend this item").uncheck()
    tab.page.get_by_label("Tags, one a line").fill("deep blue")
    tab.page.get_by_role("button", name="Save").click()
    tab.page.get_by_text("It is switched off: it appears nowhere.").wait_for()
    tab.open("/catalog?q=deep+blue&state=off")
    tab.page.get_by_role("link", name="Title 112").wait_for()
    assert tab.mistakes == [] and tab.foreign == []


def test_a_rule_goes_from_a_form_to_the_service_and_back(open_console_tab, console_shop, previews):
    tab = open_console_tab(**WIDE)
    tab.open("/rules")
    tab.page.get_by_text("The service applies this version.").wait_for()
    tab.page.get_by_text("Add a rule").click()
    tab.page.get_by_label("What to do").select_option("pin")
    tab.page.get_by_label("Position").fill("1")
    tab.page.get_by_label("Name").fill("eight_first")
    tab.page.get_by_label("Filter").fill("item.item_id == 'i8'")
    tab.page.get_by_label("home").check()
    tab.page.keyboard.press("Enter")
    tab.page.get_by_text("New: eight_first.").wait_for()
    assert tab.find_serious() == []
    tab.page.get_by_role("button", name="Preview").click()
    tab.page.get_by_text("0 of 50 lists change.").wait_for()
    assert [call[:2] for call in previews] == [("rules", "preview")]
    draft = tab.page.url
    assert tab.page.get_by_role("button", name="Publish for everybody").is_disabled()
    tab.page.get_by_role("switch").click()
    assert tab.page.url == draft
    tab.page.get_by_text("0 of 50 lists change.").wait_for()  # the preview is kept
    tab.page.get_by_label("Why, for the history").fill("eight week")
    tab.page.get_by_role("button", name="Publish for everybody").click()
    tab.page.get_by_text("The service applies this version.").wait_for()
    tab.page.get_by_text("eight week").wait_for()
    tab.page.get_by_role("button", name="Roll back to").click()
    tab.page.get_by_text("The service applies this version.").wait_for()
    assert tab.page.locator("#served").get_by_text("Never show them").count() == 1
    assert tab.page.locator("#served").get_by_text("Show the best of them").count() == 0
    assert tab.mistakes == [] and tab.foreign == []
