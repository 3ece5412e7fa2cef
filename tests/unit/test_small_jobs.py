"""Small data is computed in the process of the job, large data by workers on the cluster."""

import contextlib
import json
import os

import pytest

from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.jobs import cluster
from handsell.jobs.train import retrievers as fits

EVENTS = 1_000


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path))
    path = tmp_path / "small.toml"
    path.write_text(f'name = "small"\n[data]\nformat = "world"\n[jobs]\nsmall_events = {EVENTS}\n')
    return load_config(path)


@pytest.fixture
def started(monkeypatch):
    """Records each connection to a cluster; none is started."""
    found = []

    @contextlib.contextmanager
    def connect(num_cpus):
        found.append(num_cpus)
        yield

    monkeypatch.setattr(cluster, "connect", connect)
    return found


def write_count(config, events):
    meta = Layout(config.state).data_meta
    meta.parent.mkdir(parents=True, exist_ok=True)
    meta.write_text(json.dumps({"events": events}))


def fail(number):
    raise HandsellError(f"task {number}")


@pytest.mark.parametrize(("events", "small"), [(EVENTS, True), (EVENTS + 1, False), (None, False)])
def test_the_number_of_events_decides(config, started, events, small):
    if events is not None:
        write_count(config, events)
    with cluster.open_cluster(config):
        assert cluster.is_in_process() == small
    assert not cluster.is_in_process()
    assert started == ([] if small else [config.jobs.num_cpus])


def test_tasks_of_small_data_run_here_in_order_and_raise_their_errors(config, started):
    with cluster.open_cluster(config, EVENTS):
        assert cluster.run_tasks(lambda n: (n, os.getpid()), [(2,), (1,)]) == [(2, os.getpid()), (1, os.getpid())]
        with pytest.raises(HandsellError, match="task 3"):
            cluster.run_tasks(fail, [(3,), (4,)])
    assert not started


def test_a_large_part_of_a_small_job_goes_to_the_cluster(config, started):
    with cluster.open_cluster(config, 1):
        with cluster.open_cluster(config, EVENTS + 1):
            assert not cluster.is_in_process()
        assert cluster.is_in_process()
    assert len(started) == 1


@pytest.mark.parametrize(
    ("name", "changed", "use_gpu", "small", "large"),
    [
        ("two_tower", {}, "auto", False, True),
        ("two_tower", {"workers": 2}, "auto", True, True),
        ("sasrec", {}, "auto", False, True),
        ("sasrec", {}, True, True, True),
        ("als", {}, True, False, False),
        ("als", {"blocks": 2}, "auto", True, True),
    ],
)
def test_a_small_fit_takes_workers_only_where_there_are_several_or_gpus(
    config, monkeypatch, name, changed, use_gpu, small, large
):
    section = config.retrieval[name].model_copy(update=changed)
    jobs = config.jobs.model_copy(update={"use_gpu": use_gpu})
    config = config.model_copy(update={"jobs": jobs, "retrieval": config.retrieval.with_sections({name: section})})
    for in_process, expected in ((True, small), (False, large)):
        monkeypatch.setattr(fits, "is_in_process", lambda found=in_process: found)
        assert fits._takes_workers(config, name) == expected
