"""Two gateways on two nodes with PostgreSQL, Redis, S3 and no shared folder: equal answers, also while S3 is away."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import shared_nothing_nodes
from s3_server import S3Server
from server_programs import report_missing

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # two raylets and three servers, of which some are killed


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """host:port of a Redis server."""
    binary, port = shutil.which("redis-server"), find_free_port()
    if binary is None:
        report_missing("redis-server is not installed: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(scope="module")
def s3_alone():
    """An S3 server that this module may stop."""
    server = S3Server()
    try:
        server.start()
        server.create_bucket()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def seen(tmp_path_factory, postgresql, redis, s3_alone):
    """Output of shared_nothing_nodes.py; ends all processes that it started."""
    folder = tmp_path_factory.mktemp("nodes")
    stores = {
        "HANDSELL_EVENT_STORE": postgresql.create_database(), "HANDSELL_ONLINE_STORE": redis,
        "HANDSELL_STORAGE": s3_alone.create_folder(), "HANDSELL_HOME": str(folder / "home"), **s3_alone.environment,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stores.items():
            patch.setenv(name, value)
        world, other = shared_nothing_nodes.publish_world(folder, find_free_port())
    shutil.rmtree(folder / "home")  # what serving needs is in the stores
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | stores | {
        "HANDSELL_HOME": str(folder / "operator"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }  # fmt: skip
    program = subprocess.Popen(
        [
            sys.executable, shared_nothing_nodes.__file__, str(world.config.source), str(folder),
            str(s3_alone.process.pid), other,
        ],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = program.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        told, _ = program.communicate()
    assert program.returncode == 0, told[-6_000:]
    line = next(line for line in told.splitlines() if line.startswith("nodes:"))
    return json.loads(line.removeprefix("nodes:"))


def test_both_gateways_give_the_same_slate_and_know_a_new_event(seen):
    assert seen["nodes"] == 2 and len(seen["before"]) == 12
    assert all(slate == seen["before"][0] for slate in seen["before"])
    assert all(seen["warm"])


def test_each_node_has_a_copy_of_its_own(seen):
    assert seen["cached"] == [True, True]
    assert all("feast" in names and "bundles" in names for names in seen["folders"])


def test_a_promotion_and_a_rollback_reach_both_gateways(seen):
    assert all(seconds is not None for seconds in seen["followed"])


def test_serving_goes_on_while_s3_is_away_and_a_killed_gateway_starts_from_the_cache(seen):
    assert seen["again"] == 2
    for slates in (seen["away"], seen["after"]):
        assert len(slates) >= 10 and all(slate == seen["before"][0] for slate in slates)


def test_only_requests_in_flight_at_the_killed_gateway_fail(seen):
    assert seen["n"] > 100
    assert seen["failed"] == {} and seen["failed in flight"] < 10
    assert seen["degraded"] == {}
