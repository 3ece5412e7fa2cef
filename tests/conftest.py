"""Fixtures for all tests: a seeded random generator, real data sets, and one Ray cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from handsell.core.proxies import bypass_proxies
from handsell.core.ray_token import create_token, token_environment

OWN = (
    "HANDSELL_DATA", "HANDSELL_HOME", "HANDSELL_CONFIG", "HANDSELL_ONLINE_STORE", "HANDSELL_EVENT_STORE",
    "HANDSELL_API_KEY",
    "HANDSELL_STORAGE", "AWS_ENDPOINT_URL",
)  # fmt: skip
RAYS = ("RAY_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RAY_API_SERVER_ADDRESS")
for name in (*OWN, *RAYS, "FEAST_FS_YAML_FILE_PATH"):
    os.environ.pop(name, None)  # tests must not use the deployment of the caller
os.environ |= bypass_proxies()  # the services of tests listen on this machine
TOKEN_FOLDER = tempfile.TemporaryDirectory(prefix="handsell-tests-")  # removed when the session ends
os.environ |= token_environment(create_token(Path(TOKEN_FOLDER.name) / "ray.token"))  # before Ray is imported
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # nodes listen on 127.0.0.1 alone
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from canary_visitors import canary_states, canary_world  # noqa: E402, F401
from deployment import deployment  # noqa: E402, F401
from event_stores import event_store, reader, writer  # noqa: E402, F401
from postgresql_server import postgresql  # noqa: E402, F401
from ray_fixture import ray_cluster  # noqa: E402, F401
from s3_server import own_s3, s3, s3_server  # noqa: E402, F401

ROOT = Path(__file__).parent.parent
untimed = hypothesis.settings(database=None, deadline=None)
hypothesis.settings.register_profile("reproducible", untimed, derandomize=True)  # the same examples in every run
hypothesis.settings.register_profile("explore", untimed, print_blob=True)  # fresh ones: make explore
hypothesis.settings.load_profile("reproducible")
STARTS_RAY = {"ray_cluster", "deployment"}  # fixtures
collect_ignore = ["plugins"]  # separate packages, which tests/behavior/test_plugin_package.py installs and tests


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests wait for processes, disks and servers."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start Ray processes as `cluster`; `make test` runs them one by one, the rest in parallel."""
    for item in items:
        if STARTS_RAY.intersection(item.fixturenames) or item.path.is_relative_to(ROOT / "tests" / "graph"):
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Path of the checkout."""
    return ROOT


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20_260_630)


@pytest.fixture(scope="session")
def test_data():
    """Function that returns the path of a data set under $HANDSELL_TEST_DATA, or skips the test if it is missing."""
    base = Path(os.environ.get("HANDSELL_TEST_DATA") or ROOT.parent / "shared" / "data")

    def folder(name: str) -> Path:
        if not (base / name).is_dir():
            pytest.skip(f"no data set {name} in {base}: set HANDSELL_TEST_DATA to the folder that holds it")
        return base / name

    return folder


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Function that loads a Config from TOML text, with its state under tmp_path."""
    from handsell.config import load_config

    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "home"))

    def config(toml: str):
        path = tmp_path / "config.toml"
        path.write_text(toml)
        return load_config(path)

    return config
