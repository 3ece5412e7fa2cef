"""Previews of business rules see the catalog changes that came after the bundle."""

import numpy as np
import pytest

from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE
from handsell.core.paths import Layout
from handsell.events.store.interface import CatalogChange
from handsell.events.store.opening import open_writer
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
