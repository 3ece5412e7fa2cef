"""Batch surfaces: a slate per user, resumable, caps respected, logged as shown exactly once."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from experiment_world import BOLD, change_experiments, expect_slate, two_arms
from handsell.bundles import local_bundle
from handsell.bundles.store import BundleStore
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import load_config
from handsell.config.overlay import apply_overlay, build_overlay
from handsell.core.errors import ConfigError, DataError, HandsellError
from handsell.core.paths import Layout
from handsell.events.store.interface import CatalogChange
from handsell.events.store.opening import open_reader, open_writer
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.experiments.canary import CanaryTerms, start_canary
from handsell.experiments.state import StateFile, now_us
from handsell.experiments.traffic import RequestUnits, Traffic
from handsell.jobs.batch import batch_slates as job
from handsell.jobs.batch import batch_worker, slate_part
from handsell.serving.guard_rails.config import CanaryConfig
from handsell.testing.rule_catalog import write_rule
from serving_world import ITEMS, USERS, publish_other_bundle, write_world

EMAIL = 'seen_on = ["home", "email"]\nshown_days = 5\ncap = { slates = 1, days = 1 }'


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Twenty users; parts are made in this process, one after the other."""
    made = write_world(tmp_path)
    source = made.config.source
    source.write_text(source.read_text().replace("[surfaces.email]", f"[surfaces.email]\n{EMAIL}"))
    made = replace(made, config=load_config(source))
    Vocabulary.of(f"u{i}" for i in range(USERS)).save(Layout(made.config.state).catalog / "users")
    monkeypatch.setattr(local_bundle, "open_store", lambda config: made.store())
    monkeypatch.setattr(job, "run_tasks", lambda task, arguments, **_: [task(*each) for each in arguments])
    monkeypatch.setattr(job, "connect", lambda *_: __import__("contextlib").nullcontext())
    batch_worker.load_worker.cache_clear()
    yield made
    batch_worker.load_worker.cache_clear()


def slates(out) -> dict[str, list[str]]:
    tables = [pq.read_table(path) for path in sorted(out.glob("part-*.parquet"))]
    return {row["user_id"]: row["item_id"] for table in tables for row in table.to_pylist()}


def shown(world) -> dict[str, list[str]]:
    """user → what the log says was shown by e-mail."""
    columns = open_reader(world.config).read_impressions(limit=10_000)
    found: dict[str, list[str]] = {}
    for user, surface, item in zip(columns["user_id"], columns["surface"], columns["item_id"], strict=True):
        if surface == "email":
            found.setdefault(user, []).append(item)
    return found


def test_every_user_gets_a_slate_and_the_log_knows_it(world, tmp_path):
    out = tmp_path / "email"
    said = job.batch(world.config, "email", out, users_per_part=6)
    found = slates(out)
    assert sorted(found) == sorted(f"u{i}" for i in range(USERS)) and said.startswith("20 slates of 100 items")
    assert all(len(items) == len(set(items)) == 5 for items in found.values())
    assert found == shown(world)
    row = pq.read_table(out / "part-00000.parquet").to_pylist()[0]
    assert len(row["score"]) == len(row["reason"]) == len(row["sources"]) == 5 and row["degraded"] == []
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["parts"], manifest["users"], manifest["slates"], manifest["bundle"]) == (4, 20, 20, world.bundle)
    assert open_reader(world.config).count_lost_impressions() == {
        f"{manifest['id']}-{part:05d}": 0 for part in range(4)
    }


def test_slates_are_those_that_the_service_would_answer(world, tmp_path):
    from handsell.core.funnel import run_local

    job.batch(world.config, "email", tmp_path / "email", record=False)
    here = batch_worker.open_worker(str(world.config.source), world.bundle)
    run = job.BatchRun(**json.loads((tmp_path / "email" / "run.json").read_text()))
    reader = open_reader(world.config)
    asked = batch_worker.look_up_requests(here, run.surface, run.time, ["u7"], reader)
    one = run_local(here.stages.funnel.recommend(asked, 5))
    assert slates(tmp_path / "email")["u7"] == here.stages.snapshot.items.ids(one.item[0])
    assert shown(world) == {}  # not recorded


def test_what_was_stopped_goes_on_and_nothing_is_logged_twice(world, tmp_path, monkeypatch):
    out, tries = tmp_path / "email", []

    def stopping(source, run, folder, part):
        tries.append(part)
        if tries == [0, 1, 2]:
            raise HandsellError("the machine went away")
        return slate_part.make_slates(source, run, folder, part)

    monkeypatch.setattr(job, "make_slates", stopping)
    with pytest.raises(HandsellError, match="went away"):
        job.batch(world.config, "email", out, users_per_part=5)
    before = slates(out)
    (out / "part-00001.json").rename(out / "part-00001.counts")  # stopped between logging and the mark
    written = (out / "part-00001.parquet").stat().st_mtime_ns
    job.batch(world.config, "email", out, users_per_part=7)  # the run's own parts, whatever is asked now
    assert tries == [0, 1, 2, 1, 2, 3]
    assert (out / "part-00001.parquet").stat().st_mtime_ns == written
    after = slates(out)
    assert len(after) == 20 and {user: after[user] for user in before} == before and after == shown(world)
    with pytest.raises(DataError, match="complete run"):
        job.batch(world.config, "email", out)


def test_the_cap_holds_from_run_to_run_and_shown_items_stay_away(world, tmp_path):
    job.batch(world.config, "email", tmp_path / "first")
    assert "20 have reached the surface's cap" in job.batch(world.config, "email", tmp_path / "second")
    assert slates(tmp_path / "second") == {}
    open_ended = world.config.source.read_text().replace("cap = { slates = 1, days = 1 }", "cap = { slates = 2 }")
    world.config.source.write_text(open_ended)
    batch_worker.load_worker.cache_clear()
    job.batch(load_config(world.config.source), "email", tmp_path / "third")
    first, third = slates(tmp_path / "first"), slates(tmp_path / "third")
    assert len(third) == 20 and not any(set(first[user]) & set(third[user]) for user in first)


def test_an_email_does_not_hold_what_home_showed(world, tmp_path):
    job.batch(world.config, "email", tmp_path / "before", record=False)
    would = slates(tmp_path / "before")["u4"]
    now = json.loads((tmp_path / "before" / "run.json").read_text())["time"]
    items = json.dumps({"item_id": would, "score": [0] * 5, "propensity": [1] * 5, "sources": [[]] * 5})
    row = {"recommendation_id": "r", "gateway": "g", "sequence": 1, "time": now, "user_id": "u4", "surface": "home"}
    with SqliteWriter(Layout(world.config.state).event_log) as log:
        log.append_slates([{**row, "bundle": "b", "items": items}]).result()
    job.batch(world.config, "email", tmp_path / "after", record=False)
    after = slates(tmp_path / "after")
    assert not set(after["u4"]) & set(would) and after["u5"] == slates(tmp_path / "before")["u5"]


def change_catalog(world, *changes):
    """Store changes (kind, id, action, fields) as the service does for its HTTP API."""
    with open_writer(world.config) as log:
        log.append_changes([CatalogChange(*change, 1) for change in changes]).result()


def test_a_deleted_or_unavailable_item_is_in_no_slate_from_the_next_part_on(world, tmp_path, monkeypatch):
    job.batch(world.config, "email", tmp_path / "before", users_per_part=10, record=False)
    before = slates(tmp_path / "before")
    deleted, unavailable = before["u1"][:2]
    later = before["u15"][0]
    change_catalog(
        world, ("item", deleted, "delete", {}), ("item", unavailable, "patch", {"available": False}),
        ("item", "new", "put", {"title": "New"}),
    )  # fmt: skip

    def make(source, run, folder, part):
        done = slate_part.make_slates(source, run, folder, part)
        change_catalog(world, ("item", later, "delete", {}))  # between the parts of one worker
        return done

    monkeypatch.setattr(job, "make_slates", make)
    job.batch(world.config, "email", tmp_path / "after", users_per_part=10, record=False)
    after = slates(tmp_path / "after")
    assert len(after) == USERS and all(len(items) == 5 for items in after.values())
    assert not {deleted, unavailable} & {item for items in after.values() for item in items}
    assert later not in {item for user in range(10, USERS) for item in after[f"u{user}"]}


def test_a_filter_reads_attributes_that_users_got_since(world, tmp_path, monkeypatch):
    filtered = """filter = "user.plan != 'kids' or 'red' in item.tags"
"""
    text = world.config.source.read_text().replace("[surfaces.email]\n", f"[surfaces.email]\n{filtered}")
    world.config.source.write_text(text.replace("[features]\n", '[features]\nuser_attributes = { plan = "text" }\n'))
    config = load_config(world.config.source)
    change_catalog(world, ("user", "u1", "patch", {"plan": "kids"}), ("user", "u2", "put", {"plan": "pro"}))
    made = replace(world, config=config, rows={user: {**row, "plan": "pro"} for user, row in world.rows.items()})
    monkeypatch.setattr(local_bundle, "open_store", lambda config: made.store())
    job.batch(config, "email", tmp_path / "email", record=False)
    found = slates(tmp_path / "email")
    assert all(int(item[1:]) % 2 == 1 for item in found["u1"])  # red
    assert any(int(item[1:]) % 2 == 0 for item in found["u2"])


def test_users_for_whom_nothing_is_left_have_no_slate(world, tmp_path):
    with SqliteWriter(Layout(world.config.state).event_log) as log:
        names = [world.snapshot.creators.ids([i])[0] for i in range(len(world.snapshot.creators))]
        tags = [world.snapshot.tags.ids([i])[0] for i in range(len(world.snapshot.tags))]
        log.put_blocks("u2", names, tags).result()
    said = job.batch(world.config, "email", tmp_path / "email")
    found = slates(tmp_path / "email")
    left = {
        f"i{i}" for i in range(ITEMS) if world.snapshot.creator[i] == -1 and not len(world.snapshot.item_tags.row(i))
    }
    assert set(found.get("u2", [])) <= left and len(found.get("u2", [])) <= len(left)
    assert ("u2" in found) or "1 got no items" in said


def test_slates_are_those_of_each_users_arm_and_logged_with_it(world, tmp_path):
    other = publish_other_bundle(world, seed=34)
    parts = [
        two_arms("bolder", BOLD + "surface = { count = 4 }\n", surfaces='["email"]'),
        two_arms("ranker", f'bundle = "{other}"', layer='"r"'),
        two_arms("at_home", BOLD, surfaces='["home"]', layer='"h"'),
        two_arms("mix", "weights = { item_knn = 9.0 }", share="0.4", layer='"m"', interleave='["control", "bold"]'),
    ]
    world = change_experiments(world, "".join(parts))
    job.batch(world.config, "email", tmp_path / "email", users_per_part=11)
    rows = [row for path in sorted((tmp_path / "email").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    traffic, seen = Traffic(world.config), set()
    shown = open_reader(world.config).read_impressions(limit=10_000)
    logged = {row["recommendation_id"]: shown["recommendation_id"].index(row["recommendation_id"]) for row in rows}
    for row in rows:
        arms, i = json.loads(row["arms"]), logged[row["recommendation_id"]]
        given = traffic.assign(RequestUnits(row["user_id"]), "email", now_us())
        assert arms == given.list_arms() and "at_home" not in arms
        assert json.loads(shown["arms"][i]) == given.arms and shown["bundle"][i] == row["bundle"]
        assert row["bundle"] == (other if arms["ranker"] == "bold" else world.bundle)
        taken = [(one := world.config.experiments[name], one.arms[given.arms[name]]) for name in ("bolder", "ranker")]
        config = apply_overlay(world.config, build_overlay(world.config, taken))
        n = 4 if arms["bolder"] == "bold" else 5
        seen.add((arms["bolder"], arms["ranker"], arms.get("mix")))
        if arms.get("mix") == "interleaved":
            assert shown["interleaved"][i] == "mix" and set(shown["teams"][i : i + n]) == {"control", "bold"}
            continue
        expected = expect_slate(world, config, row["user_id"], row["time"], n, row["bundle"], "email")
        assert row["item_id"] == expected
    assert len(rows) == USERS and len(seen) > 5


def test_a_broken_bundle_of_an_arm_gives_control_and_a_canary_gets_its_share(world, tmp_path):
    other = publish_other_bundle(world, seed=35)
    states = StateFile(Layout(world.config.state).bundles)
    start_canary(BundleStore(Layout(world.config.state).bundles), states, other, 0.4, CanaryConfig(), CanaryTerms())
    world = change_experiments(world, two_arms("ranker", 'bundle = "20260101t000000-00000000"', surfaces='["email"]'))
    job.batch(world.config, "email", tmp_path / "email")
    rows = pq.read_table(tmp_path / "email" / "part-00000.parquet").to_pylist()
    arms = [json.loads(row["arms"]) for row in rows]
    assert {one["ranker"] for one in arms} == {"control"} and any("stopped" in row["experiments"] for row in rows)
    assert {one.get("canary") for one in arms} == {"control", "candidate", None}
    for one, row in zip(arms, rows, strict=True):
        assert row["bundle"] == (other if one.get("canary") == "candidate" else world.bundle)


def test_business_rules_hold_in_batch_slates(world, tmp_path):
    source = world.config.source
    rules = [write_rule("pinned", "pin", items="item.item_id == 'i44'", position=2, surfaces=["email"])]
    rules.append(write_rule("bold", "pin", items="item.item_id == 'i46'", position=1, experiment="marked", arm="bold"))
    (source.parent / "rules.toml").write_text("\n".join(rules))
    source.write_text(source.read_text().replace("[ranking]", '[reranking]\nrules = "rules.toml"\n[ranking]', 1))
    world = change_experiments(world, two_arms("marked", ""))
    job.batch(world.config, "email", tmp_path / "email", record=False)
    rows = pq.read_table(tmp_path / "email" / "part-00000.parquet").to_pylist()
    assert all(row["rules"] for row in rows) and sum("i44" in row["item_id"][:2] for row in rows) > USERS / 2
    bold = [json.loads(row["arms"])["marked"] == "bold" for row in rows]
    first = [row["item_id"][0] == "i46" for row in rows]
    pinned, by_itself = ([one for one, arm in zip(first, bold, strict=True) if arm is side] for side in (True, False))
    assert len(pinned) > 3 and all(pinned)
    assert sum(by_itself) < len(by_itself) / 2


@pytest.mark.parametrize(
    ("surface", "there", "error", "words"),
    [
        ("moon", {}, ConfigError, "one of home, similar, email; got 'moon'"),
        ("email", {"notes.txt": "mine"}, DataError, "not empty and has no run.json"),
    ],
)
def test_what_cannot_be_done_is_told(world, tmp_path, surface, there, error, words):
    out = tmp_path / "out"
    out.mkdir()
    for name, text in there.items():
        (out / name).write_text(text)
    with pytest.raises(error, match=words):
        job.batch(world.config, surface, out)


def test_a_run_goes_on_only_as_it_was_begun(world, tmp_path):
    out = tmp_path / "email"
    job.plan_run(world.config, "email", out, 5, True)
    with pytest.raises(DataError, match="holds a run of surface email"):
        job.plan_run(world.config, "home", out, 5, True)
    assert job.plan_run(world.config, "email", out, 9, True).users_per_part == 5
