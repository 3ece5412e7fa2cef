"""The page Rules: words, drafts, changes by form and as text, preview, publication and the way back."""

import asyncio
import re
import tomllib
from dataclasses import replace
from html import unescape

import pytest

from console_app import open_console
from experiment_world import change_experiments, two_arms
from handsell.config import load_config
from handsell.console.business_rules.drafts import KEPT, RuleDrafts
from handsell.console.business_rules.edited_rules import compare_rules
from handsell.console.business_rules.preview_words import describe_preview
from handsell.console.business_rules.rule_form import list_fields, read_rule
from handsell.console.business_rules.rule_text import append_rule, remove_rule, switch_rule
from handsell.console.business_rules.rule_words import put_in_words
from handsell.console.business_rules.served_rules import CheckedRules, compile_rules
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.reranking.rules.description import describe_rules
from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.reading import version_of
from handsell.testing.rule_catalog import CONFIG, draw_rule_catalog, write_rule
from handsell.testing.small_catalog import NOW
from serving_world import write_world

ONE = write_rule("no_five", "exclude", items="item.item_id == 'i5'")
COMMENTED = f"""# summer
{ONE}
# winter
[[rule]]  # second
name = "w"
kind = "pin"
enabled = true
position = 2
items = "item.item_id == 'i6'"
"""


@pytest.fixture
def world(tmp_path):
    made = write_world(tmp_path)
    path = tmp_path / "shop.toml"
    path.write_text(path.read_text() + '[reranking]\nrules = "rules.toml"\n')
    (tmp_path / "rules.toml").write_text(ONE)
    return replace(made, config=load_config(path))


def read_text(response):
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.text)))


def describe(rng, text):
    ruleset = compile_rules(CONFIG, draw_rule_catalog(rng), text.encode(), "x")
    return [put_in_words(one) for one in describe_rules(ruleset, NOW)]


# -- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, keys, words",
    [
        ("exclude", {}, "Never show them"),
        ("pin", {"position": 3}, "Show the best of them at position 3"),
        ("include", {"within": 5}, "Show at least one of them in the first 5 positions"),
        ("include", {}, "Show at least one of them in each list"),
        ("quota", {"share": 0.08}, "Give them 8% of what is shown in a day"),
        (
            "quota", {"min_share": 0.1, "per": "slate", "within": 4},
            "Give them at least 10% of each list, in the first 4 positions",
        ),
        (
            "quota", {"min_share": 0.1, "max_share": 0.2},
            "Give them at least 10% and at most 20% of what is shown in a day",
        ),
        ("boost", {"factor": 1.5}, "Rank them higher (relevance × 1.5)"),
        ("bury", {"factor": 0.5, "subtract": 0.1}, "Rank them lower (relevance × 0.5 − 0.1)"),
    ],
)  # fmt: skip
def test_what_a_rule_does_is_said_in_words(rng, kind, keys, words):
    (found,) = describe(rng, write_rule("x", kind, items="item.explicit", **keys))
    assert (found.effect, found.item_count, found.where, found.when) == (words, 20, "everywhere", "always")


def test_which_items_and_when_is_said_in_words(rng):
    text = write_rule(
        "x", "exclude", items="item.year > 2010", newer_than_days=30, creator_items_at_most=9, surfaces=["email"],
        days=["mon", "fri"], hours="18:00-24:00", time_zone="Europe/Berlin",
    )  # fmt: skip
    (found,) = describe(rng, text)
    assert found.items == "items with item.year > 2010, published in the last 30 days, by creators with at most 9 items"
    assert found.when == "on Monday, Friday at 18:00 to 24:00 (Europe/Berlin)" and found.where == "email"


def test_an_exclusion_keeps_out_where_it_applies_now_to_everybody(rng):
    keys = {"items": "item.explicit"}
    everywhere, email = describe(rng, write_rule("a", "exclude", **keys)), {"surfaces": ["email"], **keys}
    assert everywhere[0].keeps_out == () and describe(rng, write_rule("a", "exclude", **email))[0].keeps_out == (
        "email",
    )
    arms = "[experiments.x]\narms = { a = 0.5, b = 0.5 }\n"
    assert describe(rng, arms + write_rule("a", "exclude", arm="a", **keys))[0].keeps_out is None
    assert describe(rng, write_rule("a", "pin", position=1, **keys))[0].keeps_out is None


def test_a_draft_says_how_it_differs(rng):
    def check(*names, position=1):
        text = "".join(write_rule(name, "pin", items="item.explicit", position=position) for name in names)
        return CheckedRules("", tuple(describe(rng, text)))

    assert compare_rules(check("a", "b"), check("b", "c")) == "New: c. Gone: a."
    assert compare_rules(check("a"), check("a", position=2)) == "Changed: a."
    assert "the same" in compare_rules(check("a"), check("a"))


def test_every_registered_kind_has_words_and_fields(rng):
    for name, kind in rule_kinds().items():
        (found,) = describe(rng, write_rule("x", name, items="item.explicit", **kind.example))
        assert found.effect and not found.effect.startswith("(")
        assert {field.name for field in list_fields(name)} >= set(kind.example)


# -- changes of the text --------------------------------------------------------------------------------------------


def test_a_form_becomes_a_rule_that_is_read_as_it_was_meant(rng):
    form = {
        "kind": ["quota"], "name": ["fresh"], "min_share": ["0.1"], "per": ["slate"], "within": ["4"], "share": [""],
        "items": ['item.brand == "b1" and not item.explicit'], "newer_than_days": ["1e4"], "from": ["2020-01-01"],
        "surfaces": ["home", "email"], "unknown": ["x"],
    }  # fmt: skip
    text = append_rule("", read_rule(form))
    (rule,) = tomllib.loads(text)["rule"]
    assert rule["min_share"] == 0.1 and rule["items"] == form["items"][0] and str(rule["from"]) == "2020-01-01"
    (found,) = describe(rng, text)
    assert found.effect.startswith("Give them at least 10% of each list") and found.where == "home, email"
    assert "unknown" not in text and append_rule(COMMENTED, read_rule(form)).startswith(COMMENTED)


def test_fields_of_a_kind_have_ranges_and_choices():
    fields = {field.name: field for field in list_fields("quota")}
    assert fields["per"].choices == ("day", "slate") and fields["share"].hint.startswith("0 to 1")
    assert (
        fields["share"].is_number and fields["within"].hint.startswith("1 to 30") and not fields["within"].is_required
    )
    assert [field.is_required for field in list_fields("pin")] == [True] and list_fields("nonesuch") == []


def test_a_rule_is_paused_resumed_and_removed_and_everything_else_stays():
    paused = switch_rule(COMMENTED, "w", False)
    assert "enabled = false" in paused and "enabled = true" not in paused and "# winter" in paused
    assert tomllib.loads(switch_rule(paused, "w", True))["rule"][1] == {
        key: value for key, value in tomllib.loads(COMMENTED)["rule"][1].items() if key != "enabled"
    }
    removed = remove_rule(COMMENTED, "no_five")
    assert [rule["name"] for rule in tomllib.loads(removed)["rule"]] == ["w"] and removed.startswith("# summer")
    assert tomllib.loads(remove_rule(removed, "w")) == {}


@pytest.mark.parametrize(
    "text",
    [
        "rule = [{ name = 'a', kind = 'exclude', items = 'item.x' }]\n",
        "[[rule]]\nname = 'a'\nkind = 'exclude'\nitems = '''\n[[rule]]\n'''\n",
        "[[rule]]\nname = 'a'\nkind = 'exclude'\nitems = '''\nenabled = true\n'''\n",
        "[[rule]]\nname = 'b'\n",
        "[[rule",
    ],
)
def test_a_file_that_cannot_be_cut_safely_is_not_changed(text):
    with pytest.raises(ConfigError):
        switch_rule(text, "a", False)
        remove_rule(text, "a")


def test_drafts_are_kept_by_their_content_and_the_oldest_go(tmp_path):
    drafts = RuleDrafts(tmp_path / "drafts")
    first = drafts.save("a\r\n")
    assert drafts.read(first) == b"a\n" and first == version_of(b"a\n") and drafts.save("a\n") == first
    for n in range(KEPT + 3):
        drafts.save(f"# {n}")
    assert len(list((tmp_path / "drafts").iterdir())) == KEPT
    assert drafts.read("../../x") is None and drafts.read("0" * 12) is None
    with pytest.raises(ConfigError, match="at most"):
        drafts.save("x" * 200_001)


def test_a_preview_is_said_in_words(rng):
    snapshot = draw_rule_catalog(rng)
    row = {"item_id": "i1", "title": "One", "score": 0.5}
    others = [{**row, "item_id": f"i{n}", "title": ""} for n in (2, 3)]
    after = [{**others[1], "rules": ["up"]}, {**row, "rules": []}, {**row, "item_id": "i9", "rules": []}]
    found = {
        "requests": 200, "recorded": True, "changed_slates": 40,
        "mean_score": {"before": 0.1, "after": 0.09, "loss": 0.01},
        "by_rule": [{"rule": "up", "kind": "pin", "requests": 200, "before": 0.02, "after": 0.1, "could_not_hold": 3}],
        "items": {"winners": [{"id": "i3", "before": 1, "after": 1_005, "change": 1_004}], "losers": []},
        "creators": {"winners": [], "losers": []},
        "slates": [{"user_id": None, "surface": "home", "before": [row, *others], "after": after}],
    }  # fmt: skip
    words = describe_preview(found, snapshot)
    assert (
        words.headline == "40 of 200 lists change. Estimated interest in what is shown: 10.0% lower."
        and words.is_harmful
    )
    assert words.rules == [["up", "200", "2.0%", "10.0%", "3"]] and words.items == [["i3", "1", "1,005", "+1,004"]]
    (one,) = words.lists
    assert [item.note for item in one.before] == ["", "gone", ""] and [item.note for item in one.after] == [
        "up",
        "down",
        "new",
    ]


# -- the page -------------------------------------------------------------------------------------------------------


async def test_the_page_says_what_is_served_and_whether_the_service_applies_it(world):
    async with open_console(world) as visitor:
        words = read_text(await visitor.get("/rules"))
        assert f"Version {version_of(ONE.encode())}" in words
        assert (
            "Never show them 1 item: items with item.item_id == 'i5' no_five · everywhere · always · ● applies now"
            in words
        )
        active = await visitor.get(f"/rules/active?version={version_of(ONE.encode())}")
        assert "The service applies this version." in active.text
        assert "still applies" in (await visitor.get("/rules/active?version=0123")).text


async def test_a_draft_is_checked_kept_and_can_be_shared(world):
    async with open_console(world) as visitor:
        await visitor.get("/rules")
        kept = await visitor.post("/rules/draft", text=ONE + "\n" + write_rule("x", "pin", items="item.yeer > 1"))
        assert "The draft does not fit." in kept.text and "rule 'x' (no. 2): position: expected" in read_text(kept)
        assert kept.url.query.startswith(b"draft=")
        again = await visitor.get(f"/rules?{kept.url.query.decode()}")
        assert "item.yeer" in unescape(again.text) and "Publish for everybody" not in again.text
        broken = await visitor.post("/rules/draft", text="[[rule")
        assert "not readable TOML" in broken.text and "[[rule" in unescape(broken.text)
        assert "not kept any more" in (await visitor.get("/rules?draft=0123456789ab")).text


async def test_a_rule_is_added_by_the_form_paused_and_published(world):
    async with open_console(world) as visitor:
        await visitor.get("/rules")
        fields = {"text": ONE, "kind": "pin", "name": "top", "items": "item.item_id == 'i8'"}
        wrong = await visitor.post("/rules/add", **fields, position="44")
        assert wrong.status_code == 422 and "Not added." in wrong.text and "position" in wrong.text
        assert 'value="top"' in wrong.text and 'value="44"' in wrong.text
        added = await visitor.post("/rules/add", **fields, position="1")
        assert (
            "The rule top is in the draft." in added.text and "The draft fits: 2 active rules. New: top." in added.text
        )
        draft = dict(re.findall(r'name="(draft|expected)" value="([^"]+)"', added.text))
        text = unescape(re.search(r"<textarea id=\"f-text\"[^>]*>(.*?)</textarea>", added.text, re.S)[1])
        paused = await visitor.post("/rules/change", text=text, change="pause:no_five")
        assert "The rule no_five is paused in the draft." in paused.text and "no_five · ○ paused" in read_text(paused)
        assert "The draft fits: 1 active rule. New: top. Gone: no_five." in paused.text
        assert (await visitor.post("/rules/publish", **draft)).status_code == 403
        await visitor.switch_edit()
        done = await visitor.post("/rules/publish", **draft, note="top item")
        assert "Published." in done.text and world.config.rules_path.read_text() == text
        assert [(e.action, e.status) for e in visitor.audit] == [("console: rules publish", "done")]
        assert "published by console" in read_text(done) and "top item" in done.text
        stale = await visitor.post("/rules/publish", **draft)
        assert stale.status_code == 422 and "meanwhile" in stale.text and visitor.audit[-1].status == "failed"
        former = await visitor.get(f"/rules?draft={version_of(ONE.encode())}")  # a published version as a draft
        assert "The draft fits: 1 active rule." in former.text and "Gone: top." in former.text
        assert RuleDrafts(Layout(world.config.state).rules / "drafts").read(version_of(ONE.encode())) == ONE.encode()
        back = await visitor.post("/rules/rollback", version=version_of(ONE.encode()))
        assert "Published." in back.text and world.config.rules_path.read_text() == ONE
        assert "rolled back to by console" in read_text(back)


async def test_the_service_applies_what_was_published(world):
    async with open_console(world) as visitor:
        await visitor.switch_edit()
        await visitor.get("/rules")
        kept = await visitor.post(
            "/rules/draft", text=write_rule("top", "pin", items="item.item_id == 'i8'", position=1)
        )
        draft = dict(re.findall(r'name="(draft|expected)" value="([^"]+)"', kept.text))
        await visitor.post("/rules/publish", **draft)
        for _ in range(200):
            active = await visitor.get(f"/rules/active?version={draft['draft']}")
            if "applies this version" in active.text:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(active.text)


async def test_only_an_admin_publishes(world, monkeypatch):
    monkeypatch.setattr("handsell.console.visitors.FOLLOW_S", 0.0)
    async with open_console(world, keys="required") as visitor:
        await visitor.sign_in("catalog")
        await visitor.switch_edit()
        await visitor.get("/rules")
        kept = await visitor.post("/rules/draft", text="# nothing")
        assert "This needs a key with the scope admin" in kept.text
        draft = dict(re.findall(r'name="(draft|expected)" value="([^"]+)"', kept.text))
        assert (await visitor.post("/rules/publish", **draft)).status_code == 403
        assert (await visitor.post("/rules/rollback", version="x")).status_code == 403
        assert world.config.rules_path.read_text() == ONE and not visitor.audit
        assert "cannot ask the service" in (await visitor.get("/rules/active?version=x")).text


async def test_a_preview_runs_in_the_background_and_shows_its_result(world, monkeypatch):
    asked, nobody = [], {"winners": [], "losers": []}

    async def call(arguments):
        asked.append(arguments)
        await asyncio.sleep(0.05)
        return {
            "requests": 50, "recorded": False, "changed_slates": 0, "mean_score": {"before": 0, "after": 0, "loss": 0},
            "by_rule": [], "items": nobody, "creators": nobody, "slates": [],
        }  # fmt: skip

    monkeypatch.setattr("handsell.console.background_commands._call", call)
    async with open_console(world) as visitor:
        await visitor.get("/rules")
        kept = await visitor.post("/rules/draft", text="# nothing")
        draft = kept.url.query.decode().partition("=")[2]
        waiting = await visitor.post("/rules/preview", partial=True, draft=draft, requests="50")
        assert 'hx-trigger="load delay:1s"' in waiting.text
        for _ in range(100):
            shown = await visitor.get(f"/rules/preview?draft={draft}&requests=50")
            if "lists change" in shown.text:
                break
            await asyncio.sleep(0.02)
        assert "0 of 50 lists change. Estimated interest in what is shown: the same." in shown.text
        assert asked[0][:2] == ("rules", "preview") and asked[0][-1] == "--json" and len(asked) == 1
        assert "Preview again" in (await visitor.get(f"/rules?draft={draft}")).text
        unknown = await visitor.post("/rules/preview", partial=True, draft="0" * 12, requests="50")
        assert unknown.status_code == 422 and "expected a draft" in unknown.text


async def test_without_a_file_the_page_says_how_to_have_one(tmp_path):
    async with open_console(write_world(tmp_path)) as visitor:
        page = await visitor.get("/rules")
        words = read_text(page)
        assert "This deployment has no file of rules" in words and 'write `rules = "rules.toml"`' in words
        assert "expected" not in words and "Add to the draft" not in words and "<textarea" not in page.text


async def test_a_file_that_is_gone_is_said(world):
    async with open_console(world) as visitor:
        world.config.rules_path.unlink()
        words = read_text(await visitor.get("/rules"))
        assert "The file of rules cannot be read" in words and "No such file" in words and "Add to the" not in words


async def test_arms_with_other_rules_are_named(world):
    arms = change_experiments(world, two_arms("quiet", "rules = 'none'"))
    async with open_console(arms) as visitor:
        assert re.search(r"other rules: quiet\.\w+ with none\.", read_text(await visitor.get("/rules")))
