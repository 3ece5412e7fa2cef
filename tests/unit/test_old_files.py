"""Old logs, training runs and bundles are removed; what is written or needed stays."""

import os
import time

import pytest

from handsell.core.paths import Layout, find_ray_folder
from handsell.features.served_log import FEATURE_LOG
from handsell.maintenance.files import (
    DAY_S,
    Removed,
    measure_folder,
    remove_old_logs,
    remove_old_runs,
)

NOW = time.time()


def write(path, size=4_096, age_s=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age_s, NOW - age_s))
    for folder in path.parents[:2]:
        os.utime(folder, (NOW - age_s, NOW - age_s))
    return path


@pytest.fixture
def config(configured, tmp_path, monkeypatch):
    monkeypatch.setattr("handsell.core.paths.find_socket_folder", lambda: tmp_path / "sockets")
    return configured('name = "old"\n[retention]\nlogs_days = 2\nlogs_mib = 1\nruns = 1')


def test_logs_without_a_line_for_days_are_removed(config):
    logs = Layout(config.state).logs
    old, new = write(logs / "data.log", age_s=3 * DAY_S), write(logs / "train.log", age_s=DAY_S)
    features = write(logs / FEATURE_LOG, age_s=30 * DAY_S)
    assert remove_old_logs(config, NOW).count == 1
    assert not old.exists() and new.exists() and features.exists()


def test_the_oldest_logs_beyond_the_size_are_removed_unless_they_are_written(config):
    logs = find_ray_folder(config.state) / "session_latest" / "logs" / "serve"
    oldest = write(logs / "a.log", 600_000, age_s=DAY_S)
    middle = write(logs / "b.log", 600_000, age_s=DAY_S / 2)
    written = write(logs / "c.log", 800_000)
    assert remove_old_logs(config, NOW).count == 2
    assert not oldest.exists() and not middle.exists() and written.exists()


def test_earlier_ray_sessions_are_removed_when_they_are_old(config):
    ray = find_ray_folder(config.state)
    latest, ended, recent = (
        write(ray / name / "logs" / "raylet.out", age_s=age * DAY_S).parents[1]
        for name, age in (("session_1", 9), ("session_2", 9), ("session_3", 1))
    )
    for session in (latest, ended):
        os.utime(session, (NOW - 9 * DAY_S, NOW - 9 * DAY_S))
    (ray / "session_latest").symlink_to(latest)
    write(latest / "logs" / "raylet.out")
    remove_old_logs(config, NOW)
    assert latest.exists() and recent.exists() and not ended.exists()


def test_the_newest_run_and_one_that_may_still_be_running_are_kept(config):
    runs = Layout(config.state).runs
    names = ("20260101t000000", "20260102t000000", "20260103t000000")
    old, running, newest = (write(runs / name / "x.npz", age_s=9 * DAY_S).parent for name in names)
    write(running / "y.npz")
    assert remove_old_runs(config, NOW) == Removed(1, 4_096)
    assert not old.exists() and running.exists() and newest.exists()


def test_nothing_to_remove_is_no_error(config):
    assert remove_old_logs(config) == remove_old_runs(config) == Removed()
    assert measure_folder(config.state) == 0
