"""The refit on all data runs beside the rest of a training, and again in its process where that has failed."""

from types import SimpleNamespace

import pytest

from handsell.jobs.train import refit


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose retrievers are one file, which says how often they were fitted in this process."""
    fitted = []

    def fit_retrievers(config, interactions, out):
        fitted.append(interactions)
        if config.fails and len(fitted) == config.fails:
            raise ValueError("no memory")
        (out / "retrievers" / "als").mkdir(parents=True)
        (out / "retrievers" / "als" / "vectors").write_text(f"fitted on {interactions.name}")
        (out / "content").mkdir()

    monkeypatch.setattr(refit, "fit_retrievers", fit_retrievers)
    monkeypatch.setattr(refit, "list_distributed", lambda config: {})
    monkeypatch.setattr(refit, "can_copy", lambda: True)
    monkeypatch.setattr(refit.os, "sched_getaffinity", lambda pid: {0, 1})
    config = SimpleNamespace(fails=0, jobs=SimpleNamespace(num_cpus=2))
    return SimpleNamespace(config=config, folder=tmp_path / "run", fitted=fitted)


def finish(run, tmp_path):
    run.folder.mkdir()
    out = tmp_path / "staging"
    out.mkdir()
    with refit.start_refit(run) as retrievers:
        retrievers.finish(out)
    assert [path.name for path in out.iterdir()] == ["retrievers"] and not list(run.folder.iterdir())
    return (out / "retrievers" / "als" / "vectors").read_text(), len(run.fitted)


@pytest.mark.parametrize(("small", "here"), [(True, 0), (False, 1)])
def test_a_process_of_its_own_fits_on_small_data(run, tmp_path, monkeypatch, small, here):
    monkeypatch.setattr(refit, "is_in_process", lambda: small)
    assert finish(run, tmp_path) == ("fitted on all", here)


def test_where_that_process_fails_this_one_fits(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(refit, "is_in_process", lambda: True)
    monkeypatch.setattr(refit, "ProcessCopy", fail_once(run, refit.ProcessCopy))
    assert finish(run, tmp_path) == ("fitted on all", 1)
    assert "no memory" in caplog.text


def fail_once(run, copy):
    """Return a ProcessCopy whose process fails: the fit there is told to."""

    def start(call):
        run.config.fails = 1
        started = copy(call)
        run.config.fails = 0
        return started

    return start


def test_a_training_that_fails_stops_it(run, monkeypatch):
    run.folder.mkdir()
    stopped = []
    monkeypatch.setattr(refit, "is_in_process", lambda: True)
    monkeypatch.setattr(refit, "ProcessCopy", lambda call: SimpleNamespace(stop=lambda: stopped.append(1)))
    with pytest.raises(KeyError), refit.start_refit(run):
        raise KeyError
    assert stopped == [1]
