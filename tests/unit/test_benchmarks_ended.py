"""A benchmark that is ended by SIGTERM removes what it has made: folders, servers, clusters, processes and mounts."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from benchmarks.durability import storage_faults
from benchmarks.events import event_load, postgresql_server
from benchmarks.serving import layouts

ENDED = 143  # exit status after SIGTERM


def test_sigterm_ends_a_benchmark_and_removes_its_folder(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "store_soak", "--scale", "0.0001", "--cycles", "50"]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("handsell-soak-*/**/log.*")):  # the store is open
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        process.terminate()
        assert process.wait(30) == ENDED
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []


def end(*_, **__):
    raise SystemExit(ENDED)


@contextmanager
def expect_end():
    with pytest.raises(SystemExit) as raised:
        yield
    assert raised.value.code == ENDED


@pytest.mark.skipif(not postgresql_server.DEBIAN.is_dir(), reason="PostgreSQL is not installed")
def test_a_server_that_is_starting_is_ended(tmp_path, monkeypatch):
    started = []

    def start(server):
        server.process = subprocess.Popen(["sleep", "60"])
        started.append(server.process)
        end()

    monkeypatch.setattr(postgresql_server.PostgresqlServer, "start", start)
    monkeypatch.setattr(postgresql_server, "subprocess", SimpleNamespace(run=lambda *_, **__: None, DEVNULL=None))
    with expect_end(), postgresql_server.start_postgresql(tmp_path):
        pass
    assert started[0].returncode is not None


def test_a_cluster_that_is_starting_is_stopped(monkeypatch):
    stopped = []
    monkeypatch.setattr(layouts.cluster, "find_running", lambda config: None)
    monkeypatch.setattr(layouts.cluster, "start", end)
    monkeypatch.setattr(layouts.cluster, "stop", stopped.append)
    with expect_end(), layouts._start_serve(layouts.ServingLayout("graph", "graph"), "config"):
        pass
    assert stopped == ["config"]


def test_a_load_generator_is_ended(monkeypatch):
    process = subprocess.Popen(["sleep", "60"])
    monkeypatch.setattr(process, "communicate", end)
    monkeypatch.setattr(event_load, "start_event_load", lambda load: process)
    with expect_end():
        event_load.run_event_load(None)
    assert process.returncode is not None


def test_a_disk_that_is_being_mounted_is_unmounted(tmp_path, monkeypatch):
    called, mounted = [], []

    def run(command, **_):
        called.append(command[0])
        if command[0] == "mount":
            mounted.append(command[-1])
            end()
        mounted.remove(command[-1])

    monkeypatch.setattr(storage_faults, "shutil", SimpleNamespace(which=lambda name: name))
    monkeypatch.setattr(storage_faults, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(type(tmp_path), "is_mount", lambda path: str(path) in mounted)
    with expect_end(), storage_faults.mount_small_disk(tmp_path / "disk"):
        pass
    assert called == ["mount", "umount"] and mounted == []


def test_a_writer_of_a_storage_fault_is_ended(tmp_path, monkeypatch):
    stopped = []

    class System:
        def __init__(self, *_, **__):
            pass

        def start(self):
            pass

        def stop(self):
            stopped.append(self)

    monkeypatch.setenv("HANDSELL_HOME", "")  # restored afterwards, like the next one
    monkeypatch.setenv("HANDSELL_EVENT_STORE", "sqlite")
    monkeypatch.setattr(storage_faults, "KilledSystem", System)
    monkeypatch.setattr(storage_faults, "load_config", lambda path: None)
    monkeypatch.setattr(storage_faults, "time", SimpleNamespace(sleep=end))
    around = storage_faults.Surroundings("config", (), (), (), "", {})
    with expect_end():
        storage_faults.set_clock_back(around, tmp_path)
    assert len(stopped) == 1
