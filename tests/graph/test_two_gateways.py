"""Two gateways on two nodes with PostgreSQL and no shared file but the bundles: equal answers, no acknowledged loss."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import gateway_nodes
from serving_world import write_world

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # two raylets, of which one is killed


@pytest.fixture(scope="module")
def seen(tmp_path_factory, postgresql):
    """Output of gateway_nodes.py; ends all processes that it started."""
    folder = tmp_path_factory.mktemp("nodes")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HANDSELL_HOME", str(folder / "home"))
        world = write_world(folder, port)
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {
        "HANDSELL_HOME": str(folder / "home"),
        "HANDSELL_EVENT_STORE": postgresql.create_database(),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    program = subprocess.Popen(
        [sys.executable, gateway_nodes.__file__, str(world.config.source), str(folder)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = program.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        told, _ = program.communicate()
    assert program.returncode == 0, told[-4_000:]
    line = next(line for line in told.splitlines() if line.startswith("nodes:"))
    return json.loads(line.removeprefix("nodes:"))


def test_both_gateways_give_the_same_slate(seen):
    assert seen["nodes"] == 2 and seen["gateways in slates"] >= 2
    assert len(seen["before"]) == 12
    assert all(slate == seen["before"][0] for slate in seen["before"])


def test_an_event_changes_the_slates_of_both_gateways(seen):
    assert all(seen["warm"])


def test_a_killed_gateway_changes_no_slate_and_loses_nothing_acknowledged(seen):
    assert seen["again"] == 2  # the killed one was replaced
    for slates in seen["after"]:
        assert len(slates) >= 10 and all(slate == seen["before"][0] for slate in slates)
    assert seen["acknowledged"] > 200
    assert (seen["lost"], seen["twice"]) == (0, 0)


def test_no_event_is_in_a_file_of_a_node(seen):
    assert seen["files"] == [[], []]
