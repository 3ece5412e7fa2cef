"""Previews of business rules see the catalog changes that came after the bundle."""

import json

import numpy as np
import pytest

from experiment_world import change_experiments, two_arms
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE
from handsell.core.paths import Layout
from handsell.events.store.interface import CatalogChange
from handsell.events.store.opening import open_writer
from handsell.experiments.state import now_us
from handsell.experiments.traffic import RequestUnits, Traffic
from handsell.local import rules as local_rules
from handsell.testing.rule_catalog import write_rule
from serving_world import USERS, write_world


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Without recorded requests: previews are those of the catalog's users."""
    made = write_world(tmp_path)
    Vocabulary.of(f"u{i}" for i in range(USERS)).save(Layout(made.config.state).catalog / "users")
    monkeypatch.setattr(local_rules, "open_store", lambda config: made.store())
    return made


def change_catalog(world, *changes):
    with open_writer(world.config) as log:
        log.append_changes([CatalogChange(*change, 1) for change in changes]).result()


def list_shown(preview, side):
    shown = preview.item[side]
    return set(preview.catalog.items.ids(np.unique(shown[shown != NONE])))


def test_a_deleted_or_unavailable_item_is_in_no_preview(world, tmp_path):
    path = tmp_path / "new.toml"
    path.write_text(write_rule("here", "pin", items="item.item_id == 'i44'", position=1))
    first = local_rules.preview_rules(world.config, path, 10)
    deleted, unavailable = sorted(list_shown(first, 0) & list_shown(first, 1) - {"i44"})[:2]
    change_catalog(
        world, ("item", deleted, "delete", {}), ("item", unavailable, "patch", {"available": False}),
        ("item", "i44", "delete", {}),
    )  # fmt: skip
    second = local_rules.preview_rules(world.config, path, 10)
    for side in (0, 1):
        assert not {deleted, unavailable, "i44"} & list_shown(second, side)
        assert (second.item[side] != NONE).all()
    assert local_rules.summarize_preview(second)["by_rule"][0]["could_not_hold"] == 10


@pytest.mark.parametrize("place", ["config", "file"])
def test_rules_of_an_arm_are_active_for_its_users(world, tmp_path, place):
    path, rule = tmp_path / "new.toml", write_rule("bold_only", "pin", items="item.item_id == 'i44'", position=1,
                                                   experiment="bolder", arm="bold")  # fmt: skip
    if place == "config":
        world = change_experiments(world, two_arms("bolder", ""))
    else:
        rule += "[experiments.bolder]\narms = { control = 0.5, bold = 0.5 }\n"
    path.write_text(rule)
    found = local_rules.preview_rules(world.config, path, USERS)
    (shown,) = local_rules.summarize_preview(found)["by_rule"]
    first = np.array(found.catalog.items.ids(found.item[1][:, 0])) == "i44"
    assert USERS / 4 < shown["requests"] < USERS * 3 / 4 and (found.active[0] | ~first).all()
    assert first.sum() == shown["requests"] - shown["could_not_hold"] > 3
    if place == "config":
        traffic = Traffic(world.config)
        arms = [traffic.assign(RequestUnits(user), "home", now_us()).arms["bolder"] for user in found.requests.user_id]
        assert (found.active[0] == (np.array(arms) == "bold")).all()


def test_recorded_requests_of_merged_visitors_and_sessions_have_their_arms(world, tmp_path):
    world = change_experiments(world, two_arms("bolder", "") + two_arms("brief", "", unit='"session"', layer='"s"'))
    shown = {"item_id": ["i1", "i2"], "score": [0.5] * 2, "propensity": [1.0] * 2, "sources": [[]] * 2}
    about = {"surface": "home", "bundle": world.bundle, "gateway": "g"}
    users, time = [f"u{i}" for i in range(12)], 1_700_000_000_000_000
    with open_writer(world.config) as log:
        for user in users:  # none of which had a slate: the visitor's arm stays
            log.merge_identity(f"anonymous:visitor of {user}", user, time).result()
        log.append_slates(
            [
                {**about, "recommendation_id": f"r{n}", "sequence": n, "time": time + n, "user_id": user,
                 "items": json.dumps({**shown, "arms": {"bolder": "control", "brief": "bold"}})}
                for n, user in enumerate(users)
            ]
        ).result()  # fmt: skip
    path = tmp_path / "new.toml"
    path.write_text(write_rule("here", "pin", items="item.item_id == 'i44'", position=1))
    arms = local_rules.preview_rules(world.config, path, 50).requests.arms.tolist()
    traffic = Traffic(world.config)
    of_visitor = [traffic.assign(RequestUnits(f"anonymous:visitor of {u}"), "home", now_us()).arms for u in users]
    assert arms == [(f"bolder={given['bolder']}", "brief=bold") for given in of_visitor]


def test_rules_select_new_and_changed_items(world, tmp_path):
    path = tmp_path / "new.toml"
    path.write_text(write_rule("fresh", "pin", items="'unheard-of' in item.tags", position=2))
    change_catalog(
        world, ("item", "new", "put", {"title": "Brand new", "tags": ["unheard-of"], "published_at": 0})
    )  # fmt: skip
    found = local_rules.preview_rules(world.config, path, 5)
    shown = local_rules.summarize_preview(found)
    assert found.catalog.items.ids(found.item[1][:, 1]) == ["new"] * 5
    assert shown["slates"][0]["after"][1] | {"score": 0} == {
        "item_id": "new", "title": "Brand new", "score": 0, "rules": ["fresh"]
    }  # fmt: skip
    _, compiled = local_rules.open_rules(world.config, path)
    assert compiled.ruleset.member.sum() == 1
