"""Sockets of `make up` while it serves: none beyond loopback runs code without the token."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from handsell.config import load_config
from handsell.core.ray_token import read_token
from handsell.local import cluster, service
from open_sockets import find_open_sockets, free_ports, list_listeners
from serving_world import write_world

TESTS = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent
REPLICA = re.compile(r"ray::ServeReplica:handsell:(?P<deployment>\w+)")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A deployment with a bundle, without Feast, on free ports."""
    serving, gcs, dashboard = free_ports(3)
    source = write_world(tmp_path_factory.mktemp("shop"), serving).config.source
    with source.open("a") as file:
        file.write(f"[jobs]\ngcs_port = {gcs}\ndashboard_port = {dashboard}\nnum_cpus = 2\nobject_store_mib = 100\n")
    return load_config(source)


@pytest.fixture(scope="module")
def head(config):
    """A local cluster that serves the graph, started by the functions of `make up`."""
    started = cluster.start(config)
    try:
        path = service.write_serve_file(config, "graph")
        document = yaml.safe_load(path.read_text())
        application = document["applications"][0]
        application["import_path"] = "shop_application:build"  # the rows of users come from a file
        application["runtime_env"]["env_vars"]["PYTHONPATH"] = str(TESTS)
        path.write_text(yaml.safe_dump(document))
        service.run_serve_deploy(path, started)
        service.wait_until_ready(config)
        yield started
    finally:
        cluster.stop(config)
        shutil.rmtree(cluster.ray_folder(config), ignore_errors=True)


@pytest.fixture(scope="module")
def token(head):
    return read_token(Path(head.token))


def test_calls_between_deployments_succeed(head, config):
    answer = httpx.get(f"{service.service_url(config)}/v1/users/u3/recommendations", timeout=30).json()
    assert len(answer["items"]) == 10 and answer["degraded"] == []


def test_beyond_loopback_only_replicas_listen_and_require_the_token(head, token):
    beyond = [listener for listener in list_listeners(psutil.Process(head.pid)) if not listener.on_loopback]
    names = [REPLICA.match(listener.name) for listener in beyond]
    assert all(names), beyond
    expected = {"Gateway", "Candidates", "Ranking", "Reranking", "EventLog", "StreamProcessor", "ExperimentGuard"}
    assert {name["deployment"] for name in names} == expected
    assert find_open_sockets(beyond, token) == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/api/serve/applications/")]
)
def test_the_dashboard_refuses_requests_without_a_token(head, method, path):
    job = {"entrypoint": "true"} if method == "POST" else None
    url = head.dashboard + path
    assert httpx.request(method, url, json=job, timeout=30).status_code == 401
    wrong = {"Authorization": "Bearer " + "0" * 64}
    assert httpx.request(method, url, json=job, headers=wrong, timeout=30).status_code == 403
    assert httpx.request(method, url, json=job, headers=head.headers, timeout=30).status_code == 200


def test_the_token_is_only_in_its_file(head, config, token):
    """It is not in the dashboard, in a log, in an environment or on a command line."""
    with httpx.Client(base_url=head.dashboard, headers=head.headers, timeout=30) as client:
        for path in ("/api/serve/applications/", "/api/jobs/", "/api/v0/workers?detail=1", "/api/v0/actors?detail=1"):
            told = client.get(path)
            assert told.status_code == 200 and token not in told.text, path
    logs = [
        path for folder in (cluster.ray_folder(config), config.state) for path in folder.rglob("*") if path.is_file()
    ]
    assert len(logs) > 20
    holders = [path for path in logs if not path.is_symlink() and token.encode() in path.read_bytes()]
    assert holders == [Path(head.token)]
    root = psutil.Process(head.pid)
    looked_at = 0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            assert token not in str(process.environ().values()) + str(process.cmdline())
            looked_at += 1
    assert looked_at > 10


def test_stock_commands_work_with_what_env_exports(head, config):
    script = f'eval "$({COMMANDS}/handsell env {config.source})" && ray status && ray job list && serve status'
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=120, env={**environment, "PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Active:" in done.stdout and "status: RUNNING" in done.stdout and "HEALTHY" in done.stdout
    addresses = {name: value for name, value in head.access.items() if not name.startswith("RAY_AUTH")}
    refused = subprocess.run(
        [f"{COMMANDS}/serve", "status"], capture_output=True, text=True, timeout=60, env={**environment, **addresses}
    )
    assert refused.returncode != 0 and "uthenticat" in refused.stdout + refused.stderr
