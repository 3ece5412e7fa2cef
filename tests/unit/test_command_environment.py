"""The command line in any environment: proxies, terminals, folders with spaces and quotes, a running cluster."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from handsell.cli import main
from handsell.cli.arguments import load, load_on_cluster
from handsell.config import load_config
from handsell.core.errors import ConfigError
from handsell.core.ray_token import create_token
from handsell.local.cluster import build_head_environment, find_running, ray_folder
from handsell.local.ownership import claim_state, require_owner
from handsell.local.up import stop_everything
from played_service import played_service

ROOT = Path(__file__).parents[2]
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
NAMES = ("my shop", "it's", 'a "b"', "$HOME", "a;b & c", "  two  ", "ü")


def handsell(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run `handsell` with these variables added to the environment, and without NO_PROXY."""
    inherited = {name: value for name, value in os.environ.items() if name.upper() != "NO_PROXY"}
    return subprocess.run(
        [sys.executable, "-m", "handsell", *map(str, arguments)],
        capture_output=True, encoding="utf-8", errors="replace", timeout=60, env={**inherited, **environment},
    )  # fmt: skip


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text('name = "shop"\n')
    return path


@pytest.mark.parametrize("given", [True, False])
def test_a_proxy_does_not_receive_calls_to_this_machine(config_file, given):
    with played_service(lambda *_: (200, {"items": []})) as (port, received):
        config_file.write_text(f'name = "shop"\n[serving]\nport = {port}\n')
        url = ["--url", f"http://127.0.0.1:{port}"] if given else []
        proxies = dict.fromkeys(PROXIES, "http://127.0.0.1:9")
        done = handsell("recommend", config_file, "a/b", *url, **proxies)
    assert done.returncode == 0, done.stderr
    assert received[0][0].startswith("/v1/users/a%2Fb/recommendations")


def test_a_terminal_without_utf8_shows_the_rest(config_file):
    with played_service(lambda *_: (200, {"title": "Käse …"})) as (port, _):
        done = handsell(
            "recommend", config_file, "u", "--url", f"http://127.0.0.1:{port}", PYTHONIOENCODING="ascii", PYTHONUTF8="0"
        )
    assert done.returncode == 0 and "K?se ?" in done.stdout


@pytest.mark.parametrize("home", ["file/home", "file"])
def test_a_home_that_cannot_be_a_folder_is_one_sentence(config_file, home):
    (config_file.parent / "file").write_text("")
    for command in (["env"], ["up"]):
        done = handsell(*command, config_file, HANDSELL_HOME=str(config_file.parent / home))
        assert "Traceback" not in done.stderr + done.stdout, command
        assert done.returncode == 1 and done.stderr.startswith("error: cannot ")


def test_two_configs_of_one_name_do_not_share_state(configured, tmp_path):
    first = configured('name = "shop"')
    claim_state(first)
    claim_state(first)
    (tmp_path / "other").mkdir()
    second = load_config(shutil.copy(first.source, tmp_path / "other" / "config.toml"))
    for use in (claim_state, require_owner, stop_everything, lambda config: load(config.source)):
        with pytest.raises(ConfigError, match="have the same name, shop"):
            use(second)
    first.source.unlink()  # moved
    claim_state(second)
    assert (second.state / "config.path").read_text() == str(second.source)


def test_a_relative_home_is_the_same_folder_for_every_process(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "HANDSELL_HOME": "home", "HANDSELL_DATA": "data"})
    monkeypatch.chdir(tmp_path)
    assert load(config_file).state == tmp_path / "home" / "shop"
    assert os.environ["HANDSELL_HOME"] == str(tmp_path / "home")
    assert os.environ["HANDSELL_DATA"] == str(tmp_path / "data")


@pytest.mark.parametrize("name", ["HANDSELL_HOME", "HANDSELL_DATA"])
@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "b\udcff"])
def test_a_path_that_cannot_be_resolved_is_one_sentence(config_file, monkeypatch, name, path):
    monkeypatch.setattr(os, "environ", {**os.environ, name: path})
    with pytest.raises(ConfigError, match=name):
        load(config_file)
    del os.environ[name]
    with pytest.raises(ConfigError, match="CONFIG"):
        load(Path(path))


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"[1]",
        b"{}",
        b'{"pid": "x", "created": 1, "gcs": "", "dashboard": ""}',
        b'{"pid": -1, "created": 1, "gcs": "", "dashboard": ""}',
        b"\xff",
    ],
)
def test_a_damaged_record_of_the_cluster_counts_as_none(configured, left):
    config = configured('name = "shop"')
    (config.state / "run").mkdir(parents=True)
    (config.state / "run" / "ray.json").write_bytes(left)
    assert find_running(config) is None
    stop_everything(config)


@pytest.mark.parametrize("left", [b"", b"\xff", b"\0", b"gone.toml"])
def test_a_damaged_record_of_the_owner_is_replaced(configured, left):
    config = configured('name = "shop"')
    config.state.mkdir(parents=True)
    (config.state / "config.path").write_bytes(left)
    claim_state(config)
    assert (config.state / "config.path").read_text() == str(config.source)


def test_a_long_temporary_folder_is_not_used_for_sockets(configured, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp/" + "long/" * 20)
    assert len(str(ray_folder(configured('name = "shop"')))) <= 42
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert str(ray_folder(configured('name = "shop"'))).startswith("/var/tmp/handsell-")


def test_the_head_and_its_children_have_short_sockets_and_no_proxies(configured, monkeypatch):
    for name, value in {**dict.fromkeys(PROXIES, "http://127.0.0.1:9"), "RAY_ADDRESS": "10.0.0.1:6379"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp/" + "long/" * 20)
    given = build_head_environment(configured('name = "shop"'))
    assert given["TMPDIR"] == "/tmp" and "RAY_ADDRESS" not in given
    assert given["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:8265"  # its own, whatever else runs on the machine
    assert {"example.com", "127.0.0.1", "localhost"} <= set(given["no_proxy"].split(","))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_passes_paths_with_spaces_and_quotes(tmp_path, name):
    """A checkout in a folder of that name, with a Python that prints its arguments."""
    folder = tmp_path / name
    (folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    for file in ("pyproject.toml", "constraints.txt", "setup.py", ".venv/.installed"):
        (folder / file).write_text("")
    command = folder / ".venv" / "bin" / "python"
    command.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    command.chmod(0o755)
    config, data = folder / "shop.toml", folder / "data"
    given = [f"CONFIG={config}", f"DATA={data}"]
    for target, expected in (
        ("up", ["-m", "handsell", "up", str(config), "--topology", "graph", "--data", str(data)]),
        ("down", ["-m", "handsell", "down", str(config)]),
    ):
        done = subprocess.run(["make", "-s", target, *given], cwd=folder, capture_output=True, encoding="utf-8")
        assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr


@pytest.fixture
def running(configured, tmp_path, monkeypatch):
    """A config whose recorded cluster is this process; changes of the environment are undone."""
    for name in ("RAY_ADDRESS", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    config = configured('name = "shop"')
    head = {
        "pid": os.getpid(), "created": psutil.Process().create_time(), "gcs": "127.0.0.1:6501",
        "dashboard": "http://127.0.0.1:8466", "token": str(create_token(tmp_path / "token" / "ray.token")),
    }  # fmt: skip
    (config.state / "run").mkdir(parents=True)
    (config.state / "run" / "ray.json").write_text(json.dumps(head))
    return config


def test_jobs_run_on_the_cluster_of_their_config(running):
    load_on_cluster(running.source)
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:6501" and os.environ["RAY_AUTH_MODE"] == "token"
    assert "127.0.0.1" in os.environ["NO_PROXY"]


def test_an_address_in_the_environment_is_kept(running):
    os.environ["RAY_ADDRESS"] = "10.0.0.1:6379"
    load_on_cluster(running.source)
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"


def test_without_a_running_cluster_no_address_is_set(running):
    (running.state / "run" / "ray.json").unlink()
    load_on_cluster(running.source)
    assert "RAY_ADDRESS" not in os.environ


@pytest.mark.parametrize("command", ["data", "features", "train", "batch", "skew"])
def test_each_job_finds_its_cluster(running, monkeypatch, command):
    """The loader of the command gets its config; it stops there."""
    from typer.testing import CliRunner

    from handsell.cli import app, data, features, serving, training
    from handsell.core.errors import HandsellError

    def load_on_cluster(path, data=None):
        raise HandsellError(f"found {path}")

    for module in (data, features, serving, training):
        monkeypatch.setattr(module, "load_on_cluster", load_on_cluster)
    options = ["--surface", "home", "--out", "out"] if command == "batch" else []
    done = CliRunner().invoke(app, [command, str(running.source), *options])
    assert str(done.exception) == f"found {running.source}"


def test_a_locale_without_utf8_does_not_change_paths(tmp_path):
    config = tmp_path / "ü" / "café.toml"
    config.parent.mkdir()
    config.write_text('name = "shop"\n')
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HANDSELL_HOME": str(tmp_path / "höme")}
    done = handsell("env", config, **plain)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "höme").rglob("feature_store.yaml")
    assert str(config) in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(("error", "sentence"), [
    (OSError(errno.ENOSPC, "No space left on device"), "error: cannot write: No space left on device. "),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: cannot use /x: Permission denied. "),
])  # fmt: skip
def test_a_full_disk_and_a_forbidden_folder_are_one_sentence(monkeypatch, capsys, error, sentence):
    def fail(arguments):
        raise error

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys.modules["handsell.cli.app"], "app", fail)
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 1 and capsys.readouterr().err.startswith(sentence)
