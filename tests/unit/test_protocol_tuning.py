"""The coordinate search: where it starts, what it finds, when it stops."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from benchmarks import protocols as modules
from benchmarks.protocols.coordinate_search import coordinate_search
from benchmarks.protocols.staged_search import staged_search

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


def test_earlier_trials_count_and_are_not_repeated():
    first = coordinate_search(SPACE, hill, 0)
    search = coordinate_search(SPACE, hill, 60, earlier=first.trials)
    assert search.trials == [first.trials[0], *search.trials[1:]]
    assert [t.params for t in search.trials] == [t.params for t in coordinate_search(SPACE, hill, 60).trials]


@pytest.fixture
def search_in_stages(monkeypatch):
    """Run a staged search by a clock of its own: a trial on all lines takes some seconds, one on a part a tenth."""
    now = 0.0

    def run(budget_s: float, seconds: float, some=hill):
        tried: dict[str, list] = {"all": [], "some": []}

        def take(value: float, spent: float) -> float:
            nonlocal now
            now += spent
            return value

        search = staged_search(
            SPACE,
            lambda params: take(hill(params), seconds),
            lambda params: take(some(params), seconds / 10),
            budget_s,
            lambda search, left: tried["all"].append(search.trials[-1].params),
            lambda search, left: tried["some"].append(search.trials[-1].params),
        )
        assert [trial.params for trial in search.trials] == tried["all"]
        assert [trial.params for trial in search.on_part] == tried["some"]
        return search

    for module in (modules.coordinate_search, modules.staged_search):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    return run


def test_a_budget_for_every_value_is_spent_on_all_lines(search_in_stages):
    search = search_in_stages(60, 1.0)
    assert not search.on_part and search.complete and search.best.params == {"size": 32, "reg": 10.0}


def test_a_budget_that_would_cut_the_search_is_spent_on_some_lines_first(search_in_stages):
    """There is time for four trials on all lines: after that of the first values, that of the best of some lines."""
    search = search_in_stages(4.5, 1.0)
    assert search.on_part[0].params == {"size": 8, "reg": 0.1} and not search.complete
    assert [trial.params for trial in search.trials[:2]] == [{"size": 8, "reg": 0.1}, {"size": 32, "reg": 10.0}]


def test_what_some_lines_prefer_does_not_decide(search_in_stages):
    search = search_in_stages(4.5, 1.0, some=lambda params: -params["reg"] - abs(params["size"] - 64))
    assert search.trials[1].params == {"size": 64, "reg": 0.1} and search.best.params != search.trials[1].params


def test_a_small_budget_is_spent_on_all_lines(search_in_stages):
    for budget_s, trials in ((0.0, 1), (2.5, 2)):  # nor on some lines, if no two trials on all remain for the rest
        search = search_in_stages(budget_s, 1.0)
        assert len(search.trials) == trials and not search.on_part and not search.complete


def test_a_space_with_a_field_that_the_section_lacks_is_refused():
    with pytest.raises(
        ConfigError, match="retriever als: search expects fields of ALSConfig with at least one value, got shrinkage"
    ):
        replace(retrievers()["als"], search={"shrinkage": (1,)}).search_space()
