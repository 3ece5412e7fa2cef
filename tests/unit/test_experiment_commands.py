"""`handsell experiments` on a log whose truth is known: list, show, analyze, plan, stop."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from handsell.cli import app
from handsell.core.errors import ConfigError, DataError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.events.store.sqlite_writer import SqliteWriter

START = 20_600 * DAY_US  # 2026-05-27
TOML = """
name = "shop"
[data]
format = "world"
[experiments.bolder]
smallest_effect = 0.2
{metric}
[experiments.bolder.arms.control]
share = 0.5
[experiments.bolder.arms.bold]
share = 0.5
reranking = {{ diversity = 0.2 }}
[experiments.teams]
layer = "rankers"
interleave = ["control", "fresh"]
[experiments.teams.arms.control]
share = 0.5
[experiments.teams.arms.fresh]
share = 0.5
weights = {{ item_knn = 2.0 }}
"""


@pytest.fixture
def configured_shop(configured, monkeypatch):
    def build(metric=""):
        return configured(TOML.format(metric=metric))

    return build


def write_log(config, rng, users=800, days=5, lift=2.0, lost=0.0):
    """Each user sees two slates a day, from a day of their own on, and clicks items with the chance of the arm.

    Arm bold loses a share `lost` of its users before anything is logged.
    """
    slates, events = [], []
    for user in range(users):
        arm, first = ("control", "bold")[user % 2], rng.integers(days)
        if arm == "bold" and rng.random() < lost:
            continue
        chance = rng.gamma(4, 0.02) * (lift if arm == "bold" else 1)
        for n in range(2 * (days - first)):
            slate, time = f"r{user}-{n}", START + int((first + n / 2) * DAY_US) + user
            teams = ["control", "fresh"] * 2
            shown = {
                "item_id": [f"i{k}" for k in rng.integers(50, size=4)], "score": [0.5] * 4, "propensity": [1.0] * 4,
                "sources": [["x"]] * 4, "arms": {"bolder": arm}, "interleaved": "teams",
                "teams": teams,
            }  # fmt: skip
            slates.append(
                {
                    "recommendation_id": slate, "gateway": "g", "sequence": len(slates), "time": time,
                    "user_id": f"u{user}", "surface": "home", "bundle": "b", "items": json.dumps(shown),
                }
            )  # fmt: skip
            for place, item in enumerate(shown["item_id"]):
                if rng.random() < chance * (1.6 if teams[place] == "fresh" else 1):
                    event = {"user_id": f"u{user}", "item_id": item, "type": "click", "time": time + 1_000_000}
                    events.append({**event, "event_id": f"e{len(events)}", "recommendation_id": slate})
    with SqliteWriter(Layout(config.state).event_log) as store:
        store.append_slates(slates).result()
        store.append(events).result()


def run(config, command, *options):
    return CliRunner().invoke(app, ["experiments", command, str(config.source), *options], catch_exceptions=True)


def test_experiments_are_listed_and_shown(configured_shop):
    config = configured_shop()
    listed = run(config, "list").output
    assert "bolder" in listed and "control 50%, bold 50%" in " ".join(listed.split()) and "runs" in listed
    shown = run(config, "show", "bolder").output
    assert "reranking = {'diversity': 0.2}" in " ".join(shown.split()) and "nothing" in shown
    assert "bolder, teams" in str(run(config, "show", "other").exception)


def test_a_doubled_click_rate_beats_control_and_is_plotted(configured_shop, rng, tmp_path):
    config = configured_shop()
    write_log(config, rng)
    done = run(config, "analyze", "bolder", "--plot", str(tmp_path / "effect.html"), "--segment", "cold")
    assert done.exit_code == 0, done.exception
    assert "bold beats control: clicks per shown item" in done.output and "Holm" in " ".join(done.output.split())
    page = (tmp_path / "effect.html").read_text()
    assert "<svg" in page and "bold beats control" in page
    assert run(config, "analyze", "bolder", "--plot", str(tmp_path / "effect.svg")).exit_code == 0
    assert (tmp_path / "effect.svg").read_text().startswith("<svg")


def test_the_json_has_the_verdict_and_its_history(configured_shop, rng):
    config = configured_shop('metric = "click"')
    write_log(config, rng)
    found = json.loads(run(config, "analyze", "bolder", "--json").output)
    assert found["verdict"]["decisions"] == {"bold": "beats"} and found["verdict"]["metric"] == "click per day"
    assert len(found["looks"]) == 5 and found["looks"][-1]["effects"][0]["outcome"] == "beats"
    assert set(found["verdict"]["lists"]) >= {"coverage", "gini", "items per slate"}
    early = json.loads(run(config, "analyze", "bolder", "--json", "--until", "2026-05-28T00:00:00Z").output)
    assert len(early["looks"]) == 1 and sum(early["verdict"]["units"].values()) < 300


def test_a_defect_refuses_the_verdict(configured_shop, rng):
    config = configured_shop()
    write_log(config, rng, lost=0.4)
    output = " ".join(run(config, "analyze", "bolder").output.split())
    assert "The verdict is refused: - sample ratio mismatch" in output and "bold beats" not in output


def test_segments_by_an_attribute_of_users(configured_shop, rng):
    config = configured_shop()
    write_log(config, rng)
    path = Layout(config.state).users
    path.parent.mkdir(parents=True, exist_ok=True)
    ages = pa.array(np.where(np.arange(700) % 3, "young", "old"))
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in range(700)], "age": ages}), path)
    found = json.loads(run(config, "analyze", "bolder", "--json", "--segment", "age").output)
    assert {s["segment"] for s in found["verdict"]["segments"]} == {"young", "old"}
    refused = run(config, "analyze", "bolder", "--segment", "size").exception
    assert isinstance(refused, ConfigError) and "cold or age, got 'size'" in str(refused)


def test_the_better_of_two_interleaved_arms_is_preferred(configured_shop, rng):
    config = configured_shop()
    write_log(config, rng)
    found = json.loads(run(config, "analyze", "teams", "--json").output)
    assert found["outcome"] == "beats" and found["challenger"] == "fresh" and found["shown"][0] == found["shown"][1]
    assert found["low"] < 0.6 / 2.6 < found["high"]
    assert "fresh is preferred to control" in run(config, "analyze", "teams").output


def test_a_plan_says_how_long_an_effect_takes(configured_shop, rng):
    config = configured_shop()
    write_log(config, rng, lift=1.0, days=8)
    (plan,) = json.loads(run(config, "plan", "bolder", "--days", "7", "--effect", "0.1", "--json").output).values()
    effects = [horizon["smallest_effect"] for horizon in plan["horizons"]]
    assert effects == sorted(effects, reverse=True) and plan["logged_days"] == 7
    assert plan["value"] == pytest.approx(0.104, rel=0.1) and plan["effect"] == 0.1
    reached = next(h["days"] for h in plan["horizons"] if h["smallest_effect"] <= 0.1)
    assert reached == plan["days"]
    assert "is found after" in run(config, "plan", "bolder", "--effect", "0.5").output


def test_a_plan_without_traffic_is_refused(configured_shop):
    refused = run(configured_shop(), "plan", "bolder").exception
    assert isinstance(refused, DataError) and "serve recommendations" in str(refused)


def test_stop_gives_control_and_ends_the_analysis(configured_shop, rng):
    config = configured_shop()
    assert "stopped: bold of bolder (slow)" in run(config, "stop", "bolder", "--arm", "bold", "--reason", "slow").output
    assert "was stopped before" in run(config, "stop", "bolder", "--arm", "bold").output
    assert "slow" in run(config, "show", "bolder").output and "runs without bold" in run(config, "list").output
    write_log(config, rng, users=40)
    assert "bold was stopped: slow" in run(config, "analyze", "bolder").output
    assert isinstance(run(config, "stop", "bolder", "--arm", "control").exception, ConfigError)
    assert "stopped: bolder" in run(config, "stop", "bolder").output


def test_an_empty_log_is_undecided_and_wrong_options_are_named(configured_shop):
    config = configured_shop()
    assert "bold against control is undecided" in run(config, "analyze", "bolder").output
    assert "not decided" in run(config, "analyze", "teams").output
    assert "--until" in str(run(config, "analyze", "bolder", "--until", "soon").exception)
    assert "--plot" in str(run(config, "analyze", "bolder", "--plot", "a.png").exception)


def test_without_experiments_the_list_says_which_section_to_add(configured):
    shown = CliRunner().invoke(app, ["experiments", "list", str(configured('name = "shop"').source)]).output
    assert "add [experiments.NAME], see docs/experiments.md" in " ".join(shown.split())
