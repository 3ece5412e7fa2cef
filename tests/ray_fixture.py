"""Ray cluster of the tests marked `cluster`; conftest.py imports the fixture from here."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory):
    """A private cluster on loopback with four logical CPUs, for the whole session."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    import ray

    ray.init(
        "local",  # never join a cluster that happens to run on this machine
        num_cpus=4,
        include_dashboard=False,
        namespace="handsell-tests",
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()
