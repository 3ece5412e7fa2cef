"""A bundle has the recipe of a config if they differ in nothing but what training chooses by itself."""

import pytest

from handsell.bundles.stages import load_bundle_config, save_config
from handsell.jobs.train.recipe import has_same_recipe
from handsell.jobs.tuning.source_selection import SourceChoice, with_sources
from handsell.jobs.tuning.strength_selection import with_strength

NAME = 'name = "shop"\n'
AUTO = '[retrieval]\nsources = "auto"\n'
TUNED = '[tuning]\nsources = ["als"]\n'
HISTORY = {"half_life_days": 365.0, "half_life_events": 5.0, "dislikes": 0.0}


def train(folder, config, chosen=lambda config: config):
    """Return the config that a bundle stores after training chose."""
    save_config(chosen(config), folder)
    return load_bundle_config(folder)


def choose(config):
    picked = {"ease": SourceChoice("ease", True, "", weight=1.0, history=HISTORY),
              "popularity": SourceChoice("popularity", True, "", weight=0.1)}  # fmt: skip
    return with_strength(with_sources(config, picked), 0.5)


def test_the_choices_of_training_are_no_difference(configured, tmp_path):
    config = configured(NAME)
    assert has_same_recipe(config, train(tmp_path, config))
    assert has_same_recipe(config, train(tmp_path, config, lambda one: with_strength(one, 0.3)))
    config = configured(NAME + AUTO)
    assert has_same_recipe(config, train(tmp_path, config, choose))


def test_a_bundle_has_no_addresses_of_stores_which_are_no_difference(configured, tmp_path):
    stores = (
        '[events]\nstore = "postgresql://shop:hunter2@db/events"\n[features]\nonline_store = "db:1,password=hunter2"\n'
    )
    config = configured(NAME + stores)
    assert has_same_recipe(config, train(tmp_path, config))
    assert "hunter2" not in (tmp_path / "config.json").read_text()


def test_tuned_parameters_are_no_difference(configured, tmp_path):
    config = configured(NAME + TUNED)
    als = config.retrieval["als"].model_copy(update={"epochs": 3})
    tuned = config.model_copy(update={"retrieval": config.retrieval.with_sections({"als": als})})
    assert has_same_recipe(config, train(tmp_path, tuned))
    assert not has_same_recipe(configured(NAME), train(tmp_path, tuned))


@pytest.mark.parametrize(
    "change",
    ["[ranking]\ndepth = 3", "[reranking]\nstrength = 0.2", "[reranking]\ndiversity = 0.3",
     "[ranking]\nenabled = false", "[features]\nhistory_length = 7", "[retrieval.als]\nepochs = 3",
     "[retrieval.ease]\nhalf_life_days = 9.0"],
)  # fmt: skip
@pytest.mark.parametrize("base", [NAME, NAME + AUTO], ids=["enabled", "auto"])
def test_changed_settings_are_a_difference(configured, tmp_path, base, change):
    config = configured(base)
    trained = train(tmp_path, config, choose if AUTO in base else lambda one: one)
    assert not has_same_recipe(configured(base + change), trained)
