"""The pages Quality, Experiments and Operations: what they show, what they change, who may, and what is recorded."""

import asyncio
import json
import re
from dataclasses import replace

import pytest

from console_app import open_console
from experiment_world import change_experiments, two_arms
from handsell.access.audit_entry import AuditEntry
from handsell.bundles.opening import open_bundles
from handsell.client.errors import NoAnswer
from handsell.console import background_commands
from handsell.console.figures import checks
from handsell.console.figures.live_lists import Line
from handsell.console.pages.quality import build_chart, has_line
from handsell.core.paths import Layout
from handsell.experiments.state import open_states
from reported_bundles import make_report, publish_report
from serving_world import write_world
from trial_results import make_analysis


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop with two experiments, the live bundle and two with reports, of which the first was live before."""
    world = write_world(tmp_path_factory.mktemp("shop"))
    toml = two_arms("bolder", "reranking = { diversity = 0.9 }") + two_arms("quiet", "rules = 'none'", layer='"other"')
    world = change_experiments(world, toml)
    bundles = [publish_report(world, make_report(ndcg), seconds) for seconds, ndcg in ((1, 0.2), (2, 0.3))]
    return replace(world, bundle=world.bundle), bundles


@pytest.fixture
def world(shop):
    """The shop with everything as at its start."""
    world, _ = shop
    states, store = open_states(world.config), open_bundles(world.config)
    states.replace(states.read().model_copy(update={"experiments": {}, "canary": None, "former_canaries": ()}))
    store.write_pointer(replace(store.pointer(), live=world.bundle, previous=()))
    (Layout(world.config.state).logs / "skew.json").unlink(missing_ok=True)
    return world


@pytest.fixture
def answers(monkeypatch):
    """What commands print, by their name, instead of running them; an exception is raised."""
    given = {}

    async def call(arguments):
        await asyncio.sleep(0)
        answer = given[arguments[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(background_commands, "_call", call)
    return given


async def wait_for_part(visitor, path):
    """Ask for a part until the command behind it is over."""
    for _ in range(100):
        part = await visitor.get(path)
        if "hx-get" not in part.text or "delay:1s" not in part.text:
            return part
        await asyncio.sleep(0.01)
    raise TimeoutError(path)


async def test_quality_shows_what_was_served(world):
    async with open_console(world) as visitor:
        empty = await visitor.get("/quality")
        assert "No lists yet" in empty.text
        for surface in ("home", "home", "email"):
            visitor.service.metrics.count_answer(surface, cold=True, short=False, degraded=())
        await visitor.context.watcher.read()
        for query, lists in (("?surface=home", 2), ("", 3), ("?surface=attic", 3)):  # an unknown one is as none
            page = await visitor.get(f"/quality{query}")
            assert re.search(rf'<dt>Lists</dt>\s*<dd class="value">{lists}</dd>', page.text), query


async def test_days_are_counted_in_the_background(world, answers):
    day = {
        "day": "2026-05-27", "slates": 3, "people": 2, "coverage": 0.3, "gini": 0.5, "diversity": 0.25, "novelty": 4.0,
        "repeat_rate": None, "exposure": {"large": 0.5, "middle": 0.3, "small": 0.2},
    }  # fmt: skip
    answers["quality"] = [day, {**day, "day": "2026-05-28", "diversity": 0.5}]
    async with open_console(world) as visitor:
        page = await visitor.get("/quality/days?days=7&surface=home")
        assert "/console/quality/day-figures?days=7&amp;surface=home" in page.text
        first = await visitor.get("/quality/day-figures?days=7&surface=home")
        assert "Counting the lists of each day" in first.text
        part = await wait_for_part(visitor, "/quality/day-figures?days=7&surface=home")
        chart = json.loads(
            re.search(r'data-chart="([^"]+Variety|[^"]+)" data-title="Variety', part.text)[1].replace("&#34;", '"')
        )
        assert chart["series"] == [{"label": "all lists", "values": [25.0, 50.0]}] and "Repeated" not in part.text
        answers["quality"] = background_commands.CommandFailedError("the log cannot be read: free space")
        failed = await wait_for_part(visitor, "/quality/day-figures?days=28")
        assert "The days could not be counted." in failed.text and "free space" in failed.text


async def test_reports_are_shown_compared_and_opened_with_a_policy_of_their_own(world, shop):
    _, (older, newer) = shop
    async with open_console(world) as visitor:
        page = await visitor.get(f"/quality/bundles?bundle={newer}")
        assert "Better than the best simple rule." in page.text and "Lists as people get them" in page.text
        without = await visitor.get("/quality/bundles")  # the live bundle has no report
        assert without.status_code == 200 and "has no report.json" in without.text and newer in without.text
        compared = await visitor.get(f"/quality/comparison?one={older}&other={newer}")
        assert "▲ better" in compared.text and "different requests" not in compared.text
        assert 'class="number">hits per request</th>' in without.text
        same = await visitor.get(f"/quality/comparison?one={older}&other={older}")
        assert same.status_code == 422 and "expected two different bundles" in same.text
        report = await visitor.get(f"/quality/report?bundle={newer}")
        policy = report.headers.get_list("content-security-policy")
        assert (
            "The whole report" in report.text
            and len(policy) == 1
            and "sandbox" in policy[0]
            and "script" not in policy[0]
        )
        missing = await visitor.get("/quality/report?bundle=../../etc")
        assert missing.status_code == 422 and "is not in" in missing.text


def test_a_chart_without_a_line_is_not_drawn():
    line, nothing = Line("a", [(0.0, 0.123456), (60.0, float("nan"))]), Line("b", [(0.0, None), (60.0, None)])
    chart = build_chart("Variety", [line, nothing], in_percent=True)
    assert chart == {"title": "Variety (%)", "x": [0.0, 60.0], "series": {"a": [12.35, None], "b": [None, None]}}
    assert has_line(chart) and not has_line(build_chart("Variety", [nothing])) and not has_line(build_chart("x", []))
    assert not has_line(build_chart("Variety", [Line("a", [(0.0, 0.5)])]))


async def test_an_experiment_is_shown_analyzed_and_stopped(world, answers):
    answers["experiments"] = make_analysis()
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("recommend", "experiments")
        listed = await visitor.get("/experiments")
        assert "bolder" in listed.text and "clicks per shown item" in listed.text
        page = await visitor.get("/experiments/show?name=bolder")
        assert "re-ranking: diversity = 0.9" in page.text and "Switch on “Edit”" in page.text
        part = await wait_for_part(visitor, "/experiments/result?name=bolder")
        assert "bold is better than control" in part.text and "as many people as their shares say" in part.text
        refused = await visitor.post("/experiments/stop", name="bolder")
        assert refused.status_code == 403 and not visitor.audit
        await visitor.post("/edit", edit="on", next="/experiments")
        wrong = await visitor.post("/experiments/stop", name="bolder", arm="control")
        assert wrong.status_code == 422 and "besides control (bold)" in wrong.text and not visitor.audit
        done = await visitor.post("/experiments/stop", name="bolder", reason="too dull")
        assert "bolder is stopped" in done.text and "stopped: too dull" in done.text
        assert open_states(world.config).read().of("bolder").reason == "too dull"
        assert [(one.action, one.object, one.status, one.detail) for one in visitor.audit] == [
            ("console: experiments stop", "experiment bolder", "done", "too dull")
        ]
        unknown = await visitor.get("/experiments/show?name=x")
        assert (
            unknown.status_code == 422 and "expected an experiment of the configuration (bolder, quiet)" in unknown.text
        )


async def test_experiments_need_their_scope(world):
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("recommend")
        refused = await visitor.get("/experiments")
        assert refused.status_code == 403 and "scope experiments" in refused.text


async def test_health_shows_stages_causes_and_what_is_missing(world):
    async with open_console(world) as visitor:
        context = visitor.context
        await context.service.ask("GET", "/v1/users/u1/recommendations")
        visitor.service.metrics.count_answer("home", False, False, ["ranking"])
        await context.watcher.read()
        page = await visitor.get("/operations?watch=1")
        assert (
            "The service is ready" in page.text and "✓ answers" in page.text and 'hx-trigger="every 15s"' in page.text
        )
        assert "the order of the sources was kept" in page.text and "does not run on the service’s cluster" in page.text


async def test_health_says_when_the_service_is_away(world):
    async with open_console(world) as visitor:
        context = visitor.context

        async def fail(*_, **__):
            raise NoAnswer("GET /readyz: nobody listens")

        context.service.ask = fail
        page = await visitor.get("/operations")
        assert page.status_code == 200 and "The service does not answer" in page.text and "nobody listens" in page.text


async def test_a_bundle_is_promoted_tried_and_rolled_back(world, shop):
    _, (older, newer) = shop
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("admin")
        page = await visitor.get("/operations/bundles")
        assert "Switch on “Edit”" in page.text and newer in page.text
        refused = await visitor.post("/operations/promote", bundle=newer)
        assert refused.status_code == 403 and open_bundles(world.config).live() == world.bundle
        await visitor.post("/edit", edit="on", next="/operations/bundles")
        promoted = await visitor.post("/operations/promote", bundle=older)
        assert f"{older} is live" in promoted.text and "still switching" in promoted.text
        trial = await visitor.post("/operations/canary", bundle=newer, share="20%", hours="1.5")
        assert "on trial: 20% of the people" in trial.text
        canary = open_states(world.config).read().running_canary
        assert (canary.bundle, canary.share, canary.duration_s) == (newer, 0.2, 5_400)
        ended = await visitor.post("/operations/canary", bundle=newer, share="0%")
        assert "has ended" in ended.text and open_states(world.config).read().running_canary is None
        await visitor.post("/operations/canary", bundle=newer, share="20%")
        ended = await visitor.post("/operations/rollback")
        assert "rolled back" in ended.text and open_states(world.config).read().running_canary is None
        back = await visitor.post("/operations/rollback")
        assert f"live: {world.bundle}" in back.text and open_bundles(world.config).live() == world.bundle
        wrong = await visitor.post("/operations/canary", partial=True, bundle=newer, share="60%")
        assert wrong.status_code == 422 and "up to 50%" in wrong.text and "<html" not in wrong.text
        assert [(one.action.removeprefix("console: "), one.object, one.status) for one in visitor.audit] == [
            ("bundles promote", f"bundle {older}", "done"),
            *(("bundles promote", f"bundle {newer} as canary {share}", "done") for share in ("20%", "0%", "20%")),
            ("bundles rollback", f"canary {newer}", "done"), ("bundles rollback", f"from bundle {older}", "done"),
            ("bundles promote", f"bundle {newer} as canary 60%", "failed"),
        ]  # fmt: skip
        assert all(one.key_id for one in visitor.audit)


async def test_bundles_are_changed_with_the_scope_admin_alone(world, shop):
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("recommend", "catalog", "experiments")
        await visitor.get("/operations/bundles")
        await visitor.post("/edit", edit="on", next="/operations/bundles")
        for path in ("promote", "canary", "rollback", "run-check"):
            refused = await visitor.post(f"/operations/{path}", bundle=shop[1][0], check="data")
            assert refused.status_code == 403 and "scope admin" in refused.text, path
        assert not visitor.audit and open_bundles(world.config).live() == world.bundle
        assert "scope admin" in (await visitor.get("/operations/audit")).text


async def test_checks_run_in_the_background_and_show_their_outcome(world, answers, monkeypatch):
    answers["doctor"] = {
        "ok": False, "events": 1, "interactions": 1, "users": 1, "described_users": 0, "items": 1, "described_items": 0,
        "days": 0.0, "first": None, "last": None, "advice": [],
        "problems": [{"name": "one user", "severity": "error", "message": "check it", "count": 1, "examples": []}],
    }  # fmt: skip
    answers["skew"] = background_commands.CommandFailedError("expected served feature vectors, got none")
    async with open_console(world) as visitor:
        assert "Not checked yet" in (await visitor.get("/operations/check?check=data")).text
        await visitor.get("/operations/checks")
        for name in ("data", "skew"):
            await visitor.post("/operations/run-check", check=name)
            await wait_for_part(visitor, f"/operations/check?check={name}")
        data = await visitor.get("/operations/check?check=data")
        assert "A training cannot use this data" in data.text and "check it" in data.text
        monkeypatch.setattr(checks, "has_served_vectors", lambda path: False)
        empty = (await visitor.get("/operations/check?check=skew")).text
        assert "Nothing to check yet" in empty and "could not be finished" not in empty and "button disabled" in empty
        monkeypatch.setattr(checks, "has_served_vectors", lambda path: True)
        failed = (await visitor.get("/operations/check?check=skew")).text
        assert "could not be finished" in failed and "expected served feature vectors" in failed
        row = {"feature": "item_trend", "compared": 40, "differing": 4, "share": 0.1}
        report = {"rows": 40, "answers": 4, "first_us": 0, "last_us": 1, "features": [row]}
        logs = Layout(world.config.state).logs
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "skew.json").write_text(json.dumps(report))
        assert "item_trend" in (await visitor.get("/operations/check?check=skew")).text
        wrong = await visitor.get("/operations/check?check=rm")
        assert wrong.status_code == 422 and "expected one of data, skew" in wrong.text


async def test_changes_are_listed_newest_first(world):
    async with open_console(world) as visitor:
        assert "No changes in 30 days" in (await visitor.get("/operations/audit")).text
        now = 4_000_000_000_000_000
        for n, action in enumerate(("bundles promote", "keys create")):
            visitor.log.append_audit([AuditEntry(now + n, "k1", "ann", action, "<b>x</b>", "done")]).result()
        page = (await visitor.get("/operations/audit")).text
        assert page.index("keys create") < page.index("bundles promote") and "&lt;b&gt;x" in page


@pytest.mark.parametrize(("keys", "is_said"), [("off", True), ("required", False)])
async def test_changes_say_what_is_not_recorded_without_keys(world, keys, is_said):
    async with open_console(world, keys=keys) as visitor:
        if keys == "required":
            await visitor.sign_in("admin")
        page = await visitor.get("/operations/audit")
        assert ("edits of the catalog are not recorded" in page.text) == is_said
        assert ("keys and edits of the catalog appear here" in page.text) != is_said


@pytest.mark.parametrize(
    "path",
    [
        "quality",
        "quality/days",
        "quality/bundles",
        "quality/comparison",
        "experiments",
        "operations",
        "operations/bundles",
    ],
)
async def test_a_deployment_without_anything_has_pages_that_say_so(tmp_path, path):
    world = write_world(tmp_path)
    async with open_console(world) as visitor:
        page = await visitor.get(f"/{path}")
        assert page.status_code == 200 and "style=" not in page.text and "<script>" not in page.text
        assert len(page.content) < 40_000
