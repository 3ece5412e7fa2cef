"""Tuning: its settings, the combinations that are tried, and which one is kept."""

import pytest

from handsell.core.errors import ConfigError, TrainingError
from handsell.jobs.train.train import count_steps, list_request_sets
from handsell.jobs.train.windows import REQUEST_SETS
from handsell.jobs.tuning.search import draw_combinations
from handsell.jobs.tuning.trials import Trial, with_params
from handsell.jobs.tuning.tuned_source import TunedSource, load_search_spaces, with_best_params

SPACE = {"embedding_size": (128, 64, 256), "reg": (0.001, 0.01, 0.1)}


def tuned(*trials: Trial) -> TunedSource:
    return TunedSource("als", trials, combinations=9, requests=10, seconds=1.0)


def test_it_is_off_until_a_source_is_named(configured):
    config = configured('name = "shop"')
    assert config.tuning.sources == () and load_search_spaces(config) == {}


def test_a_source_that_is_not_enabled_is_refused_by_the_config(configured):
    with pytest.raises(ConfigError, match=r"tuning\.sources has ease, als2: expected enabled sources \(popularity,"):
        configured('name = "shop"\n[tuning]\nsources = ["als", "ease", "als2"]')


def test_a_source_without_a_search_space_is_refused_before_anything_runs(configured):
    config = configured('name = "shop"\n[tuning]\nsources = ["als", "two_tower"]')
    with pytest.raises(
        ConfigError, match=r"tuning\.sources: expected sources that register values to search \(popul.*got two_tower:"
    ):
        load_search_spaces(config)


@pytest.mark.parametrize("key", ["budget_s = 0", "trials = 0", "max_requests = 0", "concurrent = 0", "budget = 3"])
def test_invalid_numbers_and_unknown_keys_are_refused(configured, key):
    with pytest.raises(ConfigError, match=rf"tuning\.{key.split()[0]}"):
        configured(f'name = "shop"\n[tuning]\n{key}')


@pytest.mark.parametrize(("ranking", "sources", "count"), [("true", "", 13), ("true", '"als"', 14), ("false", "", 11)])
def test_the_number_of_steps(configured, ranking, sources, count):
    config = configured(f'name = "shop"\n[ranking]\nenabled = {ranking}\n[tuning]\nsources = [{sources}]')
    assert count_steps(config) == count


@pytest.mark.parametrize(
    ("settings", "without"),
    [
        ("", set()),
        ("[ranking]\nenabled = false", {"ranker"}),  # the strength of re-ranking is chosen without a ranker, too
        ("[ranking]\nenabled = false\n[reranking]\nstrength = 0.5", {"ranker", "validation"}),
        ("[reranking]\nstrength = 0.5", set()),
    ],
)
def test_candidates_are_found_for_every_window_that_training_reads(configured, settings, without):
    sets = list_request_sets(configured(f'name = "shop"\n{settings}'))
    assert set(REQUEST_SETS) - set(sets) == without


def test_the_configs_own_values_come_first_then_the_first_of_each_field():
    own = {"embedding_size": 32, "reg": 5.0}
    every = draw_combinations(SPACE, own, most=100, seed=0)
    assert every[:2] == [own, {"embedding_size": 128, "reg": 0.001}]
    assert len(every) == 10 == len({tuple(params.items()) for params in every})
    assert draw_combinations(SPACE, own, most=1, seed=0) == [own]


def test_values_of_the_config_that_are_also_in_the_space_are_tried_once():
    every = draw_combinations(SPACE, {"embedding_size": 64, "reg": 0.1}, most=100, seed=0)
    assert len(every) == 9 and every[0] == {"embedding_size": 64, "reg": 0.1}


def test_the_seed_decides_which_are_drawn():
    drawn = [draw_combinations(SPACE, {"embedding_size": 32, "reg": 5.0}, most=6, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_first_of_the_best_is_kept_and_failures_are_not():
    trials = [Trial({"reg": 1.0}, 0.2, 1), Trial({"reg": 2.0}, None, 1, "no"), Trial({"reg": 3.0}, 0.2, 1)]
    assert tuned(*trials).best is trials[0] and "als as configured, at 0.2000" in str(tuned(*trials))
    better = tuned(*trials, Trial({"reg": 4.0}, 0.3, 1))
    assert str(better) == "als 0.2000 → 0.3000 with reg 4 (4 of 9 tried, 1 failed)"


def test_if_all_trials_fail_the_first_error_is_reported():
    with pytest.raises(
        TrainingError, match=r"tuning of als: expected a trial to succeed, all 1 failed, the first with: no data"
    ):
        tuned(Trial({"reg": 1.0}, None, 1, "no data")).best  # noqa: B018


def test_the_best_parameters_change_their_section_alone(configured):
    config = configured('name = "shop"\n[retrieval.als]\nk = 77\n[tuning]\nsources = ["als"]')
    changed = with_best_params(config, [tuned(Trial({"embedding_size": 32, "reg": 0.5}, 0.2, 1))])
    assert (changed.retrieval["als"].embedding_size, changed.retrieval["als"].reg, changed.retrieval["als"].k) == (
        32,
        0.5,
        77,
    )
    back = {"embedding_size": config.retrieval["als"].embedding_size, "reg": config.retrieval["als"].reg}
    assert with_params(changed, "als", back) == config != changed
    assert changed.state == config.state


def test_values_that_the_section_does_not_allow_are_refused(configured):
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        with_params(configured('name = "shop"'), "als", {"embedding_size": 0})
