"""The coordinate search: where it starts, what it finds, when it stops."""

import time
from dataclasses import replace

import pytest
from benchmarks.protocols.coordinate_search import coordinate_search

from handsell.core.errors import ConfigError
from handsell.retrieval.config import retrievers

SPACE = {"size": (8, 16, 32, 64), "reg": (0.1, 1.0, 10.0)}


def hill(params) -> float:
    return -abs(params["size"] - 32) / 32 - abs(params["reg"] - 10.0) / 10


def test_it_starts_at_the_first_values_and_finds_the_top_of_a_hill():
    search = coordinate_search(SPACE, hill, 60)
    assert search.trials[0].params == {"size": 8, "reg": 0.1}
    assert search.best.params == {"size": 32, "reg": 10.0} and search.complete


def test_nothing_is_tried_twice():
    search = coordinate_search(SPACE, hill, 60)
    tried = [tuple(trial.params.values()) for trial in search.trials]
    assert len(tried) == len(set(tried)) < 12


def test_a_second_round_uses_what_the_first_found():
    """The best size depends on reg: only after reg has moved does size 64 pay."""
    search = coordinate_search(SPACE, lambda p: p["reg"] + (p["size"] if p["reg"] == 10.0 else -p["size"]), 60)
    assert search.best.params == {"size": 64, "reg": 10.0}


def test_equal_values_keep_the_earlier():
    assert coordinate_search(SPACE, lambda p: 1.0, 60).best.params == {"size": 8, "reg": 0.1}


def test_without_a_space_the_defaults_are_measured_once():
    search = coordinate_search({}, lambda p: 0.5, 60)
    assert [trial.params for trial in search.trials] == [{}] and search.complete


def test_the_budget_ends_it_and_that_is_told():
    def slow(params) -> float:
        time.sleep(0.05)
        return hill(params)

    search = coordinate_search(SPACE, slow, 0.12)
    assert 1 <= len(search.trials) <= 2 and not search.complete
    assert len(coordinate_search(SPACE, slow, 0).trials) == 1


def test_every_start_is_measured_and_the_best_is_improved():
    starts = [{"size": 64, "reg": 10.0}, {"size": 16, "reg": 1.0}]
    search = coordinate_search(SPACE, hill, 60, starts=starts)
    assert [trial.params for trial in search.trials[:3]] == [{"size": 8, "reg": 0.1}, *starts]
    assert search.best.params == {"size": 32, "reg": 10.0}
    assert search.trials[3].params["reg"] == 10.0  # the search goes on from the best start
    assert len(coordinate_search(SPACE, hill, 0, starts=starts).trials) == 3


def test_rejected_parameters_are_not_tried():
    search = coordinate_search(SPACE, hill, 60, admits=lambda params: params["size"] != 32)
    assert search.best.params["size"] in (16, 64) and all(trial.params["size"] != 32 for trial in search.trials)


def test_a_space_with_a_field_that_the_section_lacks_is_refused():
    with pytest.raises(
        ConfigError, match="retriever als: search expects fields of ALSConfig with at least one value, got shrinkage"
    ):
        replace(retrievers()["als"], search={"shrinkage": (1,)}).search_space()
