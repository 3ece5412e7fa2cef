"""Quality, Experiments and Operations in a browser: charts, parts that come later, changes by hand and by keyboard."""

import contextlib
import re
from datetime import UTC, datetime

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe

from console_app import run_console
from experiment_world import change_experiments, two_arms
from handsell.bundles.opening import open_bundles
from handsell.console.pages import operations
from handsell.experiments.state import open_states
from handsell.serving.telemetry.deployment_status import DeploymentReplicas
from reported_bundles import make_report, publish_report
from serving_world import write_world

PATIENCE_MS = 60_000
PATHS = (
    "quality", "quality/days", "quality/bundles?bundle={newer}", "quality/comparison", "experiments",
    "experiments/show?name=bolder", "operations", "operations/bundles", "operations/checks", "operations/audit",
)  # fmt: skip


class ReportedConsole:
    """A console of a shop with two bundles and an experiment, whose lists some people have got."""

    def __init__(self, address, world, older, newer):
        self.address, self.config, self.older, self.newer = address, world.config, older, newer


@pytest.fixture(scope="module")
def console(tmp_path_factory):
    world = write_world(tmp_path_factory.mktemp("shop"))
    world = change_experiments(world, two_arms("bolder", "reranking = { diversity = 0.9 }"))
    older, newer = (publish_report(world, make_report(ndcg), n) for n, ndcg in ((1, 0.2), (2, 0.3)))
    with run_console(world) as (address, shop):
        with httpx.Client(base_url=shop.url) as http:
            for n in range(20):
                http.get(f"/v1/users/u{n}/recommendations").raise_for_status()
        yield ReportedConsole(address, world, older, newer)


@contextlib.contextmanager
def open_page(browser, console, **options):
    """A page that asks no other host and writes no error."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked, mistakes = set(), []
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.on(
        "console", lambda line: line.type == "error" and "status of 422" not in line.text and mistakes.append(line.text)
    )
    yield page
    context.close()
    assert asked == {console.address.split("/")[2]} and not mistakes


def switch_edit(page, console):
    page.goto(f"{console.address}/operations/bundles")
    page.get_by_role("switch", name="Edit").click()
    page.get_by_role("switch", name="Edit: on").wait_for()


def test_a_report_has_charts_and_the_same_figures_as_text(console, browser):
    with open_page(browser, console) as page:
        page.goto(f"{console.address}/quality/bundles?bundle={console.newer}")
        page.locator("figure.chart canvas").first.wait_for()
        page.get_by_text("Figures of “Share of places (%)”").click()
        assert page.get_by_role("cell", name="75").is_visible()
        assert page.locator("rect").count() == 3  # an interval of each way of recommending


def test_days_come_from_the_log_of_lists(console, browser):
    with open_page(browser, console) as page:
        page.goto(f"{console.address}/quality/days")
        page.get_by_text("Days with lists").wait_for()
        assert page.get_by_role("row", name="Catalog shown").is_visible()


def test_an_experiment_is_stopped_by_keyboard(console, browser):
    with open_page(browser, console) as page:
        page.goto(f"{console.address}/experiments/show?name=bolder")
        assert page.get_by_role("button", name="Stop the experiment").is_disabled()
        switch_edit(page, console)
        page.goto(f"{console.address}/experiments/show?name=bolder")
        page.get_by_text("What was found").wait_for()
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_label("Why").fill("too dull")
        page.keyboard.press("Enter")
        page.get_by_text("bolder is stopped").wait_for()
        assert page.get_by_text("✕ stopped: too dull").is_visible()
        assert open_states(console.config).read().of("bolder").reason == "too dull"


def test_a_bundle_is_made_live_after_a_question_and_taken_back(console, browser):
    store = open_bundles(console.config)
    with open_page(browser, console) as page:
        switch_edit(page, console)
        before, make_live = store.live(), page.get_by_role("button", name=f"Make live {console.newer}")
        page.once("dialog", lambda dialog: dialog.dismiss())
        make_live.click()
        assert store.live() == before
        page.on("dialog", lambda dialog: dialog.accept())
        make_live.click()
        page.get_by_text(f"{console.newer} is live; the service switches to it").wait_for()
        assert store.live() == console.newer
        page.get_by_role("button", name="Roll back").click()
        page.get_by_text(f"live: {before}").wait_for()
        assert store.live() == before


def test_a_trial_with_a_wrong_share_says_what_is_expected_beside_the_form(console, browser):
    with open_page(browser, console) as page:
        switch_edit(page, console)
        page.get_by_label("Share of the people").fill("many")
        page.get_by_role("button", name="Start the trial").click()
        page.locator("#trial-answer").get_by_text("expected a share of users up to 50%").wait_for()
        assert page.get_by_label("Share of the people").input_value() == "many"


def test_operations_can_be_kept_current(console, browser):
    with open_page(browser, console) as page:
        page.clock.install()
        page.goto(f"{console.address}/operations")
        page.get_by_role("link", name="Refresh every 15 seconds").click()
        page.get_by_role("link", name="Stop").wait_for()
        with page.expect_response(lambda answer: answer.url.endswith("/operations?watch=1")):
            page.clock.run_for(16_000)
        assert page.get_by_role("heading", name="Stages of a request").is_visible()


def test_times_are_iso_and_utc_wherever_the_visitor_is(console, browser):
    with open_page(browser, console, timezone_id="America/New_York", locale="en-US") as page:
        page.add_init_script(
            "window.texts = []; const write = CanvasRenderingContext2D.prototype.fillText;"
            "CanvasRenderingContext2D.prototype.fillText ="
            " function (text, ...rest) { window.texts.push(text); write.call(this, text, ...rest); };"
        )
        page.goto(f"{console.address}/quality/bundles?bundle={console.newer}")
        page.locator("figure.chart canvas").last.wait_for()
        created = datetime.fromtimestamp(open_bundles(console.config).show(console.newer).created_us / 1e6, UTC)
        row = page.locator("th[data-time]").last
        assert row.text_content() == f"{created:%Y-%m-%d %H:%M} UTC"
        texts = page.evaluate("window.texts")
        assert f"{created:%Y-%m-%d}" in texts and "UTC" in texts
        assert f"{created:%H:%M}" in {text[:5] for text in texts}
        assert not [text for text in texts if re.search(r"\d/\d|\d[ap]m", text)]


@pytest.mark.parametrize("width", [1_200, 390])
def test_the_state_of_a_replica_is_on_one_line(console, browser, width, monkeypatch):
    parts = [DeploymentReplicas("handsell", f"Shard{n}", "HEALTHY", 1, {"STARTING": n}, "") for n in range(3)]
    monkeypatch.setattr(operations, "read_deployments", lambda: parts)
    with open_page(browser, console, viewport={"width": width, "height": 900}) as page:
        page.goto(f"{console.address}/operations")
        table = page.get_by_role("region", name="Replicas")
        states = table.get_by_text("✓ healthy")
        assert states.count() == 3
        lines = "cell => new Set([...cell.childNodes].flatMap(one => { const r = document.createRange();"
        lines += " r.selectNodeContents(one); return [...r.getClientRects()].map(box => Math.round(box.top)); })).size"
        for row in table.locator("tbody tr").all():
            assert [cell.evaluate(lines) for cell in row.locator("td").all()] == [1, 1]
        card, whole = page.locator("section.card", has=table).bounding_box(), page.locator("#health").bounding_box()
        assert card["width"] == pytest.approx(whole["width"], abs=1)  # nothing empty beside it


@pytest.mark.parametrize(("scheme", "width"), [("light", 1_200), ("dark", 390)])
def test_axe_finds_nothing_and_no_page_is_wider_than_the_screen(console, browser, scheme, width):
    with open_page(browser, console, color_scheme=scheme, viewport={"width": width, "height": 900}) as page:
        for path in PATHS:
            page.goto(f"{console.address}/{path.format(newer=console.newer)}")
            while page.locator(".loading").count():  # the page's policy allows no function from outside to wait
                page.wait_for_timeout(50)
            found = Axe().run(page).response["violations"]
            assert not [(one["id"], one["nodes"][0]["html"]) for one in found], path
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
