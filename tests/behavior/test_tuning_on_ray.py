"""Tuning on the cluster finds and reports the best of a good, a bad and an invalid value."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from handsell.config import Config
from handsell.jobs.cluster import run_tasks
from handsell.jobs.progress import Progress
from handsell.jobs.train.requests import fetch_user_rows
from handsell.jobs.train.train import tune
from handsell.jobs.train.training_run import TrainingRun
from handsell.retrieval.config import retrievers

GOOD, USELESS, IMPOSSIBLE = 100, 1, -5  # neighbors of an item


@dataclass(frozen=True)
class Bare:
    """A training run up to the rows of its validation window; item_knn has one neighbor."""

    config: Config
    folder: Path

    def tuned(self, **options):
        """The run after tuning with further keys of [tuning]."""
        asked = {"sources": ("item_knn",), "budget_s": 300.0, "seed": 3, **options}
        tuning_config = type(self.config.tuning).model_validate(asked)
        config = self.config.model_copy(update={"tuning": tuning_config})
        return tune(TrainingRun(config, self.folder, Progress(1), {}))


@pytest.fixture(scope="module")
def bare(deployment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    for name in ("fit", "windows"):
        (folder / name).symlink_to(deployment.run / name)
    run_tasks(fetch_user_rows, [(deployment.config, folder, ("validation",))])
    retrieval = deployment.config.retrieval
    poor = retrieval.with_sections({"item_knn": retrieval["item_knn"].model_copy(update={"neighbors": USELESS})})
    return Bare(deployment.config.model_copy(update={"retrieval": poor}), folder)


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    space = {"neighbors": (IMPOSSIBLE, USELESS, GOOD)}
    monkeypatch.setitem(retrievers(), "item_knn", replace(retrievers()["item_knn"], search=space))


def test_the_planted_value_is_found_despite_a_failed_trial(bare, capfd):
    run = bare.tuned(concurrent=2)
    (found,) = run.tuned
    by_value = {trial.params["neighbors"]: trial for trial in found.trials}
    assert found.trials[0] is by_value[USELESS]  # the config's own value came first
    assert by_value[GOOD].value > 1.2 * by_value[USELESS].value > 0
    assert by_value[IMPOSSIBLE].value is None and "neighbors" in by_value[IMPOSSIBLE].error
    assert run.config.retrieval["item_knn"].neighbors == GOOD
    assert bare.config.retrieval["item_knn"].neighbors == USELESS
    said = capfd.readouterr().out
    assert said.count("item_knn: trial ") == 3 and "trial 3 of at most 3" in said
    assert "neighbors -5: failed: " in said and f"→ {found.best.value:.4f} with neighbors {GOOD}" in said
    assert not list(bare.folder.glob("tuning-*"))
    (again,) = bare.tuned(concurrent=1).tuned
    values = [[(trial.params, trial.value) for trial in one.trials] for one in (found, again)]
    assert values[0] == values[1]


def test_the_configured_values_are_tried_with_any_budget(bare):
    (found,) = bare.tuned(budget_s=0.001, max_requests=20).tuned
    assert [trial.params["neighbors"] for trial in found.trials] == [USELESS]
    assert found.trials[0].value is not None and found.requests == 20 and found.combinations == 3


def test_without_sources_nothing_is_tuned(bare):
    run = bare.tuned(sources=())
    assert run.tuned == () and run.config.retrieval["item_knn"].neighbors == USELESS
    assert run.progress.done == 0
