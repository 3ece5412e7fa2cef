"""A deployment serves the choices of the bundle's training where its config leaves them open."""

import pytest

from handsell.bundles.stages import apply_choices, load_bundle_config, save_config
from handsell.core.errors import BundleError
from handsell.jobs.tuning.source_selection import SourceChoice, with_sources
from handsell.jobs.tuning.strength_selection import with_strength

NAME = 'name = "shop"\n'
TABLES = '[data]\nformat = "tables"\n[data.tables.events]\npath = "events.csv"\n'
AUTO = '[retrieval]\nsources = "auto"\n'
OWN = "[reranking]\ndiversity = 0.4\nnovelty = 0.2\n"
HISTORY = {"half_life_days": 365.0, "half_life_events": 5.0, "dislikes": 0.0}


@pytest.fixture
def bundle(configured, tmp_path):
    """A bundle whose training picked ease and popularity, and strength 0.5."""
    picked = {"ease": SourceChoice("ease", True, "", weight=1.0, history=HISTORY),
              "popularity": SourceChoice("popularity", True, "", weight=0.1)}  # fmt: skip
    trained = with_strength(with_sources(configured(NAME + AUTO + "candidates = 300"), picked), 0.5)
    folder = tmp_path / "bundle"
    folder.mkdir()
    save_config(trained, folder)
    return folder


@pytest.mark.parametrize("left_open", [AUTO, TABLES], ids=["auto", "own tables"])
def test_sources_that_training_picked_are_served(configured, bundle, left_open):
    config = configured(NAME + left_open)
    served, trained = apply_choices(config, bundle), load_bundle_config(bundle)
    assert served.retrieval.enabled == ("popularity", "ease") != config.retrieval.enabled
    assert served.retrieval["popularity"].weight == 0.1
    assert {name: getattr(served.retrieval["ease"], name) for name in HISTORY} == HISTORY
    assert served.retrieval.sections == trained.retrieval.sections


def test_the_number_of_candidates_is_the_deployments(configured, bundle):
    served = apply_choices(configured(NAME + AUTO + "candidates = 77"), bundle)
    assert served.retrieval.candidates == 77 and served.retrieval.enabled == ("popularity", "ease")


def test_a_bundle_without_a_ranker_is_served_without_one(configured, tmp_path):
    save_config(configured(NAME + "[ranking]\nenabled = false"), tmp_path)
    assert not apply_choices(configured(NAME), tmp_path).ranking.enabled
    save_config(configured(NAME), tmp_path)
    assert apply_choices(configured(NAME), tmp_path).ranking.enabled
    assert not apply_choices(configured(NAME + "[ranking]\nenabled = false"), tmp_path).ranking.enabled


@pytest.mark.parametrize("closed", ['[retrieval]\nsources = "enabled"\n', ""], ids=["explicit", "by default"])
def test_configured_sources_are_kept(configured, bundle, closed):
    config = configured(NAME + closed + "[retrieval.als]\nweight = 0.7")
    assert apply_choices(config, bundle).retrieval == config.retrieval


def test_training_picks_sources_for_auto_and_for_tables(configured):
    assert configured(NAME + AUTO).picks_sources and configured(NAME + TABLES).picks_sources
    assert not configured(NAME).picks_sources
    assert not configured(f'{NAME}{TABLES}[retrieval]\nsources = "enabled"').picks_sources


def test_the_chosen_strength_scales_the_deployments_settings(configured, bundle):
    config = configured(NAME + OWN)
    served = apply_choices(config, bundle).reranking
    assert (served.strength, served.scaled().diversity, served.scaled().novelty) == (0.5, 0.2, 0.1)
    assert served.same_creator_gap == config.reranking.same_creator_gap


def test_a_configured_strength_takes_precedence(configured, bundle):
    served = apply_choices(configured(NAME + OWN + "strength = 0.25"), bundle).reranking
    assert (served.strength, served.scaled().diversity, served.scaled().novelty) == (0.25, 0.1, 0.05)


@pytest.mark.parametrize("own", [AUTO, "[reranking]\nstrength = 0.25\n"], ids=["auto", "stated"])
def test_choices_applied_twice_are_the_choices_applied_once(configured, bundle, own):
    once = apply_choices(configured(NAME + own), bundle)
    assert apply_choices(once, bundle) == once


def test_without_a_chosen_strength_the_settings_are_kept(configured, tmp_path):
    config = configured(NAME + OWN)
    save_config(config, tmp_path)
    assert apply_choices(config, tmp_path).reranking == config.reranking


def test_all_other_settings_are_the_deployments(configured, bundle):
    config = configured(NAME + AUTO + "[surfaces.home]\ncount = 7\n[ranking]\nranked = 33\n[serving]\nport = 9999")
    served = apply_choices(config, bundle)
    parts = {"retrieval", "reranking"}
    assert served.model_dump(exclude=parts) == config.model_dump(exclude=parts)
    assert served.source == config.source, "relative paths are still beside the deployment's file"


def test_a_bundle_without_a_config_is_refused_by_name(configured, tmp_path):
    with pytest.raises(BundleError, match=r"config\.json is not a handsell config.*train the bundle again"):
        apply_choices(configured(NAME), tmp_path / "nowhere")
