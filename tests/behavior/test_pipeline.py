"""`handsell train` runs every step that has something new, and skips the others."""

import re

import pytest

from deployment import write_config
from handsell.jobs import pipeline
from handsell.jobs.features import steps


@pytest.fixture(scope="module")
def config(tmp_path_factory, ray_cluster):
    return write_config(tmp_path_factory.mktemp("pipeline"), two_tower=False)


@pytest.fixture
def run(monkeypatch, capsys):
    """Function that runs the pipeline without its training; returns step → what it reported."""
    monkeypatch.setattr(pipeline, "train", lambda config, promote, progress: f"{progress.done} steps")

    def run(config) -> dict[str, str]:
        capsys.readouterr()
        assert pipeline.run_pipeline(config) == "6 steps"
        return dict(re.findall(r"\[\d+/\d+\] (\w+): (.+) \([\d.]+ s\)", capsys.readouterr().out))

    return run


def list_repeated(found: dict[str, str]) -> list[str]:
    """The steps that ran again; compaction always looks for new events."""
    return [name for name, text in found.items() if text != pipeline.UNCHANGED and name not in ("erase", "compact")]


def test_the_first_run_does_everything_and_a_second_one_nothing(config, run):
    first, second = run(config), run(config)
    assert list(first) == ["erase", "compact", "data", "features", "apply", "materialize"]
    assert "events" in first["data"] and "user rows" in first["features"]
    assert pipeline.UNCHANGED not in first.values()
    assert set(second.values()) - {second["erase"], second["compact"]} == {pipeline.UNCHANGED}
    assert second["compact"].startswith("0 events")


def test_a_single_step_is_not_repeated(config, run):
    run(config)
    steps.compute_features(config)  # `handsell features`
    assert list_repeated(run(config)) == []


def test_changed_settings_repeat_the_steps_that_depend_on_them(config, run):
    run(config)
    features = config.features.model_copy(update={"history_length": 10})
    found = run(config.model_copy(update={"features": features}))
    assert list_repeated(found) == ["features", "apply", "materialize"]


def test_a_step_that_failed_runs_again(config, run, monkeypatch):
    run(config)
    with monkeypatch.context() as broken:
        broken.setattr(steps, "materialize_rows", lambda config: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            steps.materialize(config)
    found = run(config)
    assert list_repeated(found) == ["materialize"]
