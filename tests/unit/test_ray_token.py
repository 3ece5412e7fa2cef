"""Ray's token: readable by its owner only, new at every start, rejected if others could have read it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from handsell.cli import app
from handsell.core.errors import HandsellError
from handsell.core.ray_token import create_token, read_token, token_environment
from handsell.local import cluster

PRIVATE = """
import os, stat
from pathlib import Path
from handsell.core.ray_token import read_token
from handsell.jobs.cluster import prepare_private_cluster
prepare_private_cluster()
first = os.environ["RAY_AUTH_TOKEN_PATH"]
prepare_private_cluster()
assert os.environ["RAY_AUTH_TOKEN_PATH"] == first
assert len(read_token(Path(first))) == 64
from ray._private.services import get_node_ip_address
assert get_node_ip_address() == "127.0.0.1"
from ray.dashboard.utils import get_address_for_submission_client
assert get_address_for_submission_client(None).endswith(":1"), "the state API would ask another cluster of this machine"
print(first)
"""


@pytest.fixture
def wide_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_file_and_folder_with_any_umask(tmp_path, wide_umask):
    path = create_token(tmp_path / "run" / "ray.token")
    assert mode(path) == 0o600 and mode(path.parent) == 0o700
    assert len(read_token(path)) == 64


def test_a_file_that_others_can_read_is_replaced_and_its_folder_closed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    (folder / "ray.token").write_text("known to everybody")
    (folder / "ray.token").chmod(0o644)
    path = create_token(folder / "ray.token")
    assert mode(path) == 0o600 and mode(folder) == 0o700
    assert read_token(path) != "known to everybody"


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("untouched")
    (tmp_path / "ray.token").symlink_to(tmp_path / "elsewhere")
    assert not create_token(tmp_path / "ray.token").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "untouched"


def test_every_start_has_a_new_token(tmp_path):
    path = tmp_path / "ray.token"
    assert read_token(create_token(path)) != read_token(create_token(path))


@pytest.mark.parametrize("wide", [0o640, 0o604])
def test_a_token_that_others_can_read_is_rejected(tmp_path, wide):
    path = create_token(tmp_path / "ray.token")
    token = read_token(path)
    path.chmod(wide)
    with pytest.raises(HandsellError, match=rf"by its owner alone \(mode 600\), got mode {wide:o}") as told:
        read_token(path)
    assert token not in str(told.value)


def test_a_missing_or_empty_token_is_reported(tmp_path):
    with pytest.raises(HandsellError, match="cannot read Ray's token"):
        read_token(tmp_path / "none")
    create_token(tmp_path / "ray.token").write_text("\n")
    with pytest.raises(HandsellError, match="is empty"):
        read_token(tmp_path / "ray.token")


def test_environments_carry_the_path_and_not_the_token(tmp_path):
    path = create_token(tmp_path / "ray.token")
    assert read_token(path) not in str(token_environment(path))
    assert token_environment(path)["RAY_AUTH_TOKEN"] == ""  # it would win over the path


def test_a_private_cluster_is_on_loopback_with_a_token_of_its_process():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", PRIVATE], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).exists()


@pytest.fixture
def recorded(configured):
    """Function: a config whose recorded head is this process, with these additional fields."""

    def record(**fields):
        config = configured('name = "shop"')
        run = config.state / "run"
        run.mkdir(parents=True)
        me = {"pid": os.getpid(), "created": psutil.Process().create_time()}
        (run / "ray.json").write_text(json.dumps({**me, "gcs": "h:1", "dashboard": "http://h:2", **fields}))
        return config

    return record


def test_a_cluster_without_a_token_is_reported_in_one_sentence(recorded):
    config = recorded()
    with pytest.raises(HandsellError, match=r"by an earlier version, without a token: .* `handsell down") as told:
        cluster.find_running(config)
    assert "\n" not in str(told.value)


def test_env_exports_what_ray_and_serve_commands_read(recorded, tmp_path):
    path = create_token(tmp_path / "a 'quoted' folder" / "ray.token")
    config = recorded(token=str(path))
    done = CliRunner().invoke(app, ["env", str(config.source)])
    assert done.exit_code == 0, done.output
    assert read_token(path) not in done.output
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
    told = subprocess.run(
        ["sh", "-c", done.output + "\n" + "\n".join(f'echo "${name}"' for name in names)],
        capture_output=True, text=True, check=True, env={},
    ).stdout.splitlines()  # fmt: skip
    assert told == ["h:1", "http://h:2", "http://h:2", "token", str(path)]


def test_env_without_a_cluster_exports_for_feast_only(configured):
    done = CliRunner().invoke(app, ["env", str(configured('name = "shop"').source)])
    assert "export FEAST_FS_YAML_FILE_PATH=" in done.stdout and "RAY_" not in done.stdout
    assert "no cluster of shop is running" in done.stderr


@pytest.mark.parametrize("left", ["", "{", "[]", "null", '{"pid": 1}'])
def test_a_damaged_record_of_a_cluster_counts_as_none(recorded, left):
    config = recorded(token="none")
    (config.state / "run" / "ray.json").write_text(left)
    assert cluster.find_running(config) is None and cluster.stop(config) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1,0.0.0.0"),
        ({"no_proxy": "shop.example, localhost"}, "shop.example,localhost,127.0.0.1,::1,0.0.0.0"),
        ({"NO_PROXY": "*", "no_proxy": "a"}, "*"),
    ],
)
def test_processes_of_a_cluster_bypass_proxies_on_this_machine(recorded, tmp_path, monkeypatch, given, expected):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    head = cluster.find_running(recorded(token=str(create_token(tmp_path / "token" / "ray.token"))))
    assert head is not None and (head.environment["NO_PROXY"], head.access["no_proxy"]) == (expected, expected)
