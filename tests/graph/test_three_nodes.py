"""The jobs use several nodes of a Ray cluster and train a bundle there."""

import json
import os
import signal
import subprocess
import sys

import pytest

import three_nodes
from deployment import SMALLER_WORLD, write_config
from handsell.bundles.store import BundleStore
from handsell.core.paths import Layout
from handsell.retrieval.sharding.shard_search import ShardSearch

pytestmark = pytest.mark.slow  # three raylets, a whole training

SHARDS = 2


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """(config, output of three_nodes.py); ends all processes that it started."""
    config = write_config(tmp_path_factory.mktemp("nodes"), data=SMALLER_WORLD, partitions=6, two_tower=False)
    text = config.source.read_text()
    config.source.write_text(text.replace("[retrieval]\n", f"[retrieval]\nshards = {SHARDS}\n", 1))
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    program = subprocess.Popen(
        [sys.executable, three_nodes.__file__, str(config.source)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        told, _ = program.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        told, _ = program.communicate()
    assert program.returncode == 0, told[-4_000:]
    line = next(line for line in told.splitlines() if line.startswith("nodes:"))
    return config, json.loads(line.removeprefix("nodes:"))


@pytest.mark.parametrize("step", ["data", "features", "train"])
def test_the_tasks_of_a_step_run_on_at_least_two_nodes(outcome, step):
    found = outcome[1]
    assert found["alive"] == three_nodes.NODES
    assert len(found["tasks"][step]) >= 2, found
    assert sum(found["tasks"][step].values()) >= 4


def test_a_bundle_is_trained(outcome):
    layout = Layout(outcome[0].state)
    store = BundleStore(layout.bundles)
    assert store.verify(store.live()).shards == SHARDS
    found = ShardSearch.load(store.local_path(store.live()), outcome[0], 1, SHARDS)
    assert len(found.eligibility.snapshot) > 50 and set(found.indexes) == {"als", "content"}
    assert store.verify(store.live()).sources == ("popularity", "history", "item_knn", "als", "content")
    assert len(list(layout.interactions.glob("*.parquet"))) == 6
