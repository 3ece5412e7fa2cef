"""The Ray head of `make up`: listens on loopback only, takes jobs, and is stopped completely."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from handsell.config import load_config
from handsell.core.errors import HandsellError
from handsell.local import cluster
from handsell.serving import ray_head, ray_parent

ALONE = """
import os
import psutil
from ray._private.parameter import RayParams

RayParams.__init__.__defaults__ = tuple(  # the agent's fixed port may be another cluster's
    0 if value == 52365 else value for value in RayParams.__init__.__defaults__
)
from handsell.jobs.cluster import run_tasks
from open_sockets import list_listeners

def look(pid):
    return all(listener.on_loopback for listener in list_listeners(psutil.Process(pid)))

[alone] = run_tasks(look, [(os.getpid(),)], cpus=0.5)
print(1, alone, os.environ["RAY_AUTH_MODE"])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "head.toml"
    path.write_text(
        f'name = "head"\n[serving]\nport = {free_port()}\n'
        f"[jobs]\ngcs_port = {free_port()}\ndashboard_port = {free_port()}\nnum_cpus = 1\n"
        "object_store_mib = 100\n"
    )
    return load_config(path)


@pytest.fixture(scope="module")
def head(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")  # as where the environment of the installation is not activated
        started = cluster.start(config)
    yield started
    cluster.stop(config)


def family(head: cluster.RayHead) -> list[psutil.Process]:
    root = psutil.Process(head.pid)
    return [root, *root.children(recursive=True)]


def test_it_takes_jobs_and_listens_on_loopback_only(head):
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run(
        [str(ray), "job", "submit", "--address", head.dashboard, "--", "handsell", "batch", "--help"],
        capture_output=True, text=True, timeout=90, env={**os.environ, **head.environment},
    )  # fmt: skip
    assert "Write recommendations for every user" in done.stdout, done.stdout + done.stderr
    sockets = [s.laddr for p in family(head) for s in p.net_connections("inet") if s.status == psutil.CONN_LISTEN]
    assert sockets
    assert {s.ip.removeprefix("::ffff:") for s in sockets} <= {"127.0.0.1", "::1"}


def test_it_does_without_what_one_machine_does_not_need(head):
    """Where this fails after an update of Ray, see what ray.log says, and serving/ray_head.py."""
    until = time.monotonic() + 60
    while "ray_parent.py" not in " ".join(psutil.Process(head.pid).cmdline()) and time.monotonic() < until:
        time.sleep(0.1)
    words = [" ".join(process.cmdline()) for process in family(head)]
    assert ray_parent.__file__ in words[0]
    modules = {word.split("-")[2] for word in words if word.startswith("ray-dashboard-")}
    assert modules == set(ray_head.MODULES)
    assert not [word for word in words if "/monitor.py" in word or "client.server" in word]
    assert any("handsell.serving.ray_dashboard" in word for word in words)


def test_a_private_cluster_of_a_job_is_on_loopback_and_has_a_token(tmp_path):
    """Without Ray variables in the environment; nothing is written to the home folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=180,
        env={**environment, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "True", "token"]
    assert not (tmp_path / ".ray").exists()


def test_a_taken_port_is_named(config, head):
    with pytest.raises(HandsellError, match=r"port \d+ is taken .* jobs\.gcs_port"):
        cluster.start(config)


def test_all_of_ray_ends_when_its_parent_is_killed(config, head):
    # the agents see the end of the raylet; each first reports it to the GCS, for a minute
    mine = [process for process in family(head) if "Agent" not in process.cmdline()[0]]
    psutil.Process(head.pid).kill()
    _, left = psutil.wait_procs(mine, timeout=30)
    assert left == []
    assert cluster.find_running(config) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        cluster.start(config)


def test_stop_ends_every_process_it_started_and_only_those(config, head):
    running = cluster.find_running(config)
    assert running is not None
    mine = {p.pid for p in family(running)}
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert set(cluster.stop(config)) >= mine - {os.getpid()}
        assert not [pid for pid in mine if psutil.pid_exists(pid)]
        assert stranger.poll() is None
        assert cluster.find_running(config) is None
    finally:
        stranger.kill()
        stranger.wait()
