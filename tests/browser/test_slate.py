"""<handsell-slate> in a browser: what is seen and clicked arrives in the store, once and with its position."""

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe

from listening_shop import run_shop, sign_token
from serving_world import write_world

PATIENCE_S = 60.0
PAGE = """<!doctype html>
<html lang="en"><head><title>shop</title><meta name="viewport" content="width=device-width, initial-scale=1">
<style>:root { color-scheme: SCHEME; background: Canvas } body { margin: 1rem; font-family: sans-serif }</style>
<script>
  window.views = []; window.clicks = []; window.slates = 0;
  addEventListener("handsell-view", (event) => window.views.push(event.detail.item.rank));
  addEventListener("handsell-click", (event) => window.clicks.push(event.detail.item.rank));
  addEventListener("handsell-slate", () => window.slates++);
</script>
<script type="module" src="/dist/slate.js"></script></head>
<body><main><h1>Shop</h1><handsell-slate ATTRIBUTES></handsell-slate></main></body></html>"""
PHONE, DESK = {"width": 390, "height": 700}, {"width": 1200, "height": 900}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


class WidgetShop:
    """A shop with keys, whose pages of another origin have tokens of their user."""

    def __init__(self, shop, pages, browser):
        self.shop, self.pages, self.browser = shop, pages, browser
        self.key, self.secret = shop.create_key("recommend", "events", kind="widget")
        self.contexts = []

    def sign(self, user_id="u1", life_s=600.0):
        return sign_token(self.key, self.secret, user_id, life_s)

    def open(self, scheme="light dark", viewport=DESK, before=None, path="/", machine="light", **attributes):
        """Open a page with a slate; `before` is called with the page first."""
        given = {
            "service": self.shop.url, "user-id": "u1", "token": self.sign(), "heading": "For you",
            "href": "#/item/{item_id}", "click-type": "play", "count": "8",
            **{name.replace("_", "-"): value for name, value in attributes.items()},
        }  # fmt: skip
        text = " ".join(f'{name}="{value}"' for name, value in given.items() if value is not None)
        self.pages.pages[path] = PAGE.replace("SCHEME", scheme).replace("ATTRIBUTES", text)
        context = self.browser.new_context(viewport=viewport, color_scheme=machine)
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1_000)
        if before:
            before(page)
        page.goto(self.pages.origin + path)
        return page

    def wait_for_events(self, count, kind=None):
        """Return the stored events of a type when there are so many."""
        until = time.monotonic() + PATIENCE_S
        while True:
            found = [event for event in self.shop.list_events() if kind in (None, event["type"])]
            if len(found) >= count or time.monotonic() > until:
                assert len(found) == count
                return found
            self.contexts[-1].pages[0].wait_for_timeout(100)  # the browser goes on meanwhile


@pytest.fixture
def widget(world, pages, browser):
    pages.texts, pages.asked, pages.headers = {}, [], {}
    with run_shop(world, keys="required", cors_origins=(pages.origin,)) as shop:
        widget = WidgetShop(shop, pages, browser)
        yield widget
        for context in widget.contexts:
            context.close()


def read_answer(page):
    return page.locator("handsell-slate").evaluate("slate => slate.answer")


def list_seen(page):
    """Positions of the cards of which at least half is in the window."""
    return page.locator("handsell-slate li").evaluate_all(
        """cards => cards.flatMap((card, i) => {
            const box = card.getBoundingClientRect();
            const seen = Math.min(box.bottom, innerHeight) - Math.max(box.top, 0);
            return seen >= box.height / 2 ? [i + 1] : [];
        })"""
    )


def test_views_and_clicks_arrive_with_recommendation_and_position(widget):
    page = widget.open(viewport=PHONE, count="16")
    page.locator("handsell-slate .link").first.wait_for()
    answer, seen = read_answer(page), list_seen(page)
    assert 0 < len(seen) < 16
    views = widget.wait_for_events(len(seen), "impression")
    page.locator("handsell-slate .link").nth(1).click()
    [click] = widget.wait_for_events(1, "play")
    by_rank = {item["rank"]: item["item_id"] for item in answer["items"]}
    assert sorted(view["position"] for view in views) == seen
    for event in (*views, click):
        assert event["item_id"] == by_rank[event["position"]]
        assert (event["user_id"], event["surface"]) == ("u1", "home")
        assert event["recommendation_id"] == answer["recommendation_id"]
    assert click["position"] == 2
    for rank in range(1, 17):
        page.locator("handsell-slate li").nth(rank - 1).scroll_into_view_if_needed()
        page.wait_for_function(f"views.includes({rank})")
    views = widget.wait_for_events(16, "impression")
    assert sorted(view["position"] for view in views) == [*range(1, 17)]


def test_a_card_counts_as_seen_after_a_second_in_a_page_in_front(widget):
    def stop_clock(page):
        page.clock.install(time=0)
        page.clock.pause_at(1_000)

    page = widget.open(before=stop_clock, viewport={"width": 390, "height": 420}, count="12")
    page.locator("handsell-slate .link").first.wait_for()
    seen = list_seen(page)
    page.wait_for_timeout(200)  # of the browser: the observer has looked
    page.clock.run_for(900)
    assert page.evaluate("views") == []
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(200)
    page.clock.run_for(500)
    assert page.evaluate("views") == []
    last = list_seen(page)
    assert not set(seen) & set(last)
    set_visibility(page, "hidden")
    page.clock.run_for(5_000)
    assert page.evaluate("views") == []
    set_visibility(page, "visible")
    page.clock.run_for(1_001)
    assert sorted(page.evaluate("views")) == last


def set_visibility(page, state):
    page.evaluate(
        """state => {
            Object.defineProperty(document, "visibilityState", {get: () => state, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )


def test_a_click_that_leaves_the_page_arrives(widget):
    widget.pages.pages["/elsewhere"] = "<!doctype html><title>elsewhere</title>"
    page = widget.open(href="/elsewhere", view_type="none")
    page.locator("handsell-slate .link").nth(4).click()
    page.wait_for_url("**/elsewhere")
    [click] = widget.wait_for_events(1)
    assert (click["type"], click["position"]) == ("play", 5)


def test_events_that_a_page_could_not_send_are_sent_by_the_next_once(widget):
    """The page's own server forwards what is asked, and events only from the second page on."""

    def forward(route):
        route.continue_(url=route.request.url.replace(widget.pages.origin, widget.shop.url))

    page = widget.open(service=None, before=lambda page: page.route("**/v1/recommendations", forward))
    page.wait_for_function("views.length === 8")
    first = read_answer(page)["recommendation_id"]
    page.goto("about:blank")  # events are sent when a page is left, which fails again
    page.wait_for_timeout(500)
    assert widget.shop.list_events() == []
    page.route("**/v1/events", forward)
    page.goto(widget.pages.origin)
    page.wait_for_function("views.length === 8")
    events = widget.wait_for_events(16)
    assert sorted(event["position"] for event in events if event["recommendation_id"] == first) == [*range(1, 9)]


def test_events_whose_answer_was_lost_count_once(widget):
    lost = []

    def lose_answer(route):
        if lost or route.request.method != "POST":
            route.continue_()
            return
        lost.append(route.fetch().json()["accepted"])
        route.abort()

    widget.open(before=lambda page: page.route("**/v1/events", lose_answer))
    widget.wait_for_events(8)
    page = widget.contexts[-1].pages[0]
    page.wait_for_function("Object.values(sessionStorage).join() === '[]'")  # the second answer has come
    assert lost == [8] and len(widget.shop.list_events()) == 8


def test_a_refused_token_is_replaced(widget):
    widget.pages.texts["/token"] = [widget.sign(life_s=-60), widget.sign()]
    page = widget.open(token=None, token_url="/token")
    page.locator("handsell-slate .link").first.wait_for()
    assert widget.pages.asked.count("/token") == 2
    widget.wait_for_events(8)
    assert widget.pages.asked.count("/token") == 2


def test_a_token_of_another_user_shows_an_error(widget):
    page = widget.open(token=widget.sign("u2"))
    page.get_by_role("button", name="Try again").wait_for()
    assert page.get_by_role("status").inner_text() == "Recommendations cannot be shown at the moment."


def test_loading_error_and_another_try(widget):
    held = []

    def hold_first(route):
        if route.request.method == "POST" and not held:
            held.append(route)
        else:
            route.continue_()

    page = widget.open(before=lambda page: page.route("**/v1/recommendations", hold_first))
    page.get_by_text("Loading recommendations").wait_for(state="attached")
    assert page.locator("handsell-slate .skeleton").count() == 8
    until = time.monotonic() + PATIENCE_S
    while not held and time.monotonic() < until:
        page.wait_for_timeout(50)
    held[0].fulfill(status=422, headers={"access-control-allow-origin": "*"}, json={})
    retry = page.get_by_role("button", name="Try again")
    retry.focus()
    page.keyboard.press("Enter")
    page.locator("handsell-slate .link").first.wait_for()
    page.wait_for_function("document.activeElement.shadowRoot?.activeElement?.className === 'link'")


def test_an_empty_slate_says_so(widget):
    page = widget.open(filter="'nothing' in item.tags")
    page.get_by_text("Nothing to recommend yet.").wait_for()
    page.locator("handsell-slate").evaluate("slate => slate.setAttribute('empty-text', 'Come back tomorrow')")
    assert page.get_by_role("status").inner_text() == "Come back tomorrow"


def test_the_keyboard_reaches_and_opens_every_card(widget):
    page = widget.open()
    page.locator("handsell-slate .link").first.wait_for()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("clicks") == [3] and "#/item/" in page.url
    page.locator("handsell-slate").evaluate("slate => slate.removeAttribute('href')")
    page.get_by_role("button").nth(1).press(" ")
    assert page.evaluate("clicks") == [3, 2]
    assert [event["position"] for event in widget.wait_for_events(2, "play")] == [3, 2]


def test_a_middle_click_counts_and_one_beside_the_cards_does_not(widget):
    page = widget.open(view_type="none")
    page.locator("handsell-slate .link").first.wait_for()
    page.get_by_role("heading", name="For you").click()
    page.locator("handsell-slate .link").nth(5).click(button="middle")
    assert [event["position"] for event in widget.wait_for_events(1)] == [6]


@pytest.mark.parametrize("machine", ["light", "dark"])
@pytest.mark.parametrize("state", ["items", "error", "empty"])
def test_axe_finds_nothing(widget, machine, state):
    axe = Axe()
    attributes = {"items": {}, "error": {"surface": "nowhere"}, "empty": {"filter": "'nothing' in item.tags"}}[state]
    page = widget.open(machine=machine, **attributes)
    page.locator("handsell-slate .link, handsell-slate .message").first.wait_for()
    page.mouse.move(0, 0)
    found = axe.run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


def test_the_look_follows_the_page_and_not_the_machine(widget):
    def card_color(**given):
        page = widget.open(**given)
        card = page.locator("handsell-slate .link").first
        card.wait_for()
        return card.evaluate("card => getComputedStyle(card).backgroundColor")

    assert card_color(machine="dark") == "rgb(30, 33, 39)"
    assert card_color(machine="light") == "rgb(255, 255, 255)"
    assert card_color(machine="dark", scheme="light") == "rgb(255, 255, 255)"


def test_a_strict_content_policy_keeps_the_look(widget):
    widget.pages.headers = {
        "Content-Security-Policy": f"script-src 'self' 'unsafe-inline'; style-src 'self'; connect-src {widget.shop.url}"
    }
    page = widget.open()
    card = page.locator("handsell-slate .link").first
    card.wait_for()
    assert card.evaluate("card => getComputedStyle(card).display") == "flex"


def test_text_of_the_catalog_is_no_html_and_a_picture_that_fails_is_replaced(widget):
    def rewrite(route):
        answer = route.fetch()
        body = answer.json()
        body["items"][0]["metadata"] = {"title": "<img src=x onerror=hacked()>", "picture": "/no-such-picture"}
        route.fulfill(response=answer, json=body)

    page = widget.open(before=lambda page: page.route("**/v1/recommendations", rewrite), image="picture")
    assert page.locator("handsell-slate .title").first.inner_text() == "<img src=x onerror=hacked()>"
    page.wait_for_function("!document.querySelector('handsell-slate').shadowRoot.querySelector('img')")
    assert page.locator("handsell-slate .initial").first.inner_text() == "<"


def test_a_card_names_the_liked_item(widget):
    def rewrite(route):
        answer = route.fetch()
        body = answer.json()
        body["items"][0]["reason"] = {"code": "because_you_liked", "item_id": "i1", "title": "$& <b>Moon</b>"}
        body["items"][1]["reason"] = {"code": "because_you_liked", "item_id": "i1"}
        route.fulfill(response=answer, json=body)

    page = widget.open(before=lambda page: page.route("**/v1/recommendations", rewrite))
    page.locator("handsell-slate .reason").first.wait_for()
    assert page.locator("handsell-slate li:nth-child(1) .reason").inner_text() == "Because you liked $& <b>Moon</b>"
    assert page.locator("handsell-slate li:nth-child(2) .reason").inner_text() == "Because you liked something similar"


def test_changed_attributes_ask_once_and_a_moved_slate_does_not(widget):
    page = widget.open()
    page.wait_for_function("slates === 1")
    slate = page.locator("handsell-slate")
    slate.evaluate("slate => { slate.setAttribute('count', '3'); slate.setAttribute('user-id', 'u1') }")
    page.wait_for_function("slates === 2")
    assert page.locator("handsell-slate li").count() == 3
    before = read_answer(page)["recommendation_id"]
    slate.evaluate("slate => document.body.prepend(slate)")
    page.wait_for_timeout(500)
    assert page.evaluate("slates") == 2 and read_answer(page)["recommendation_id"] == before


def test_similar_items_and_events_of_the_page(widget):
    page = widget.open(similar_to="i3", view_type="none")
    page.locator("handsell-slate .link").first.wait_for()
    answer = read_answer(page)
    assert page.locator("handsell-slate .reason").count() == 0
    item = answer["items"][2]["item_id"]
    page.locator("handsell-slate").evaluate(f"slate => slate.track('like', '{item}', 2.5)")
    [event] = widget.wait_for_events(1)
    assert (event["position"], event["value"], event["surface"]) == (3, 2.5, "similar")
    assert event["recommendation_id"] == answer["recommendation_id"]


def test_a_rejected_event_is_named_on_the_console(widget):
    lines = []
    widget.open(before=lambda page: page.on("console", lambda line: lines.append(line.text)), view_type="stare")
    page = widget.contexts[-1].pages[0]
    page.wait_for_function("views.length === 8")
    until = time.monotonic() + PATIENCE_S
    while not lines and time.monotonic() < until:
        page.wait_for_timeout(50)
    assert re.search(r"events are lost.*expected one of impression, play", " ".join(lines))


def test_nothing_is_logged_of_a_visitor_that_nobody_knows(world, pages, browser):
    with run_shop(world, cors_origins=(pages.origin,)) as shop:
        widget = WidgetShop(shop, pages, browser)
        page = widget.open(user_id=None, token=None)
        page.wait_for_function("views.length === 8")
        page.locator("handsell-slate .link").first.click()
        page.wait_for_timeout(2_000)
        assert shop.list_events() == []
        assert page.evaluate("Object.keys(sessionStorage).length") == 0
        widget.contexts[0].close()
