"""Stages on separate nodes: a killed node degrades responses but fails none, and its stage restarts on a new node."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import serving_nodes
from serving_world import write_world

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # three raylets, of which one is killed


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Output of serving_nodes.py; ends all processes that it started."""
    folder = tmp_path_factory.mktemp("nodes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = write_world(folder, port)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    paths = [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    program = subprocess.Popen(
        [sys.executable, serving_nodes.__file__, str(world.config.source), str(folder)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )  # fmt: skip
    try:
        told, _ = program.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        told, _ = program.communicate()
    assert program.returncode == 0, told[-4_000:]
    line = next(line for line in told.splitlines() if line.startswith("nodes:"))
    return json.loads(line.removeprefix("nodes:"))


def test_each_stage_is_on_its_own_node(seen):
    nodes = [node for stage in serving_nodes.STAGES for node in seen["placed"][stage]]
    assert len(nodes) == len(set(nodes)) == 3


def test_a_killed_node_degrades_responses_and_fails_none(seen):
    assert seen["failed"] == {} and seen["n"] > 80
    assert set(seen["degraded"]) == {"candidates"} and seen["lasting"] == 1.0
    assert seen["p99_ms"] <= 2 * seen["deadline_ms"]


def test_the_stage_restarts_when_a_node_has_its_resource(seen):
    assert seen["full_s"] is not None and seen["full_s"] <= 30
    (before,), (after,) = seen["placed"]["Candidates"], seen["replaced"]["Candidates"]
    assert before != after
    assert seen["replaced"]["Ranking"] == seen["placed"]["Ranking"]
