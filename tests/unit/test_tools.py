"""The interpreter of Ray, Serve and Feast, in a folder of any name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from handsell.core import tools
from handsell.core.errors import HandsellError
from handsell.core.tools import MODULES, find_plain_interpreter, start_command

NAMES = ("my shop", "it's", 'a "b"', "$HOME", "ü")


@pytest.fixture
def environment_at(tmp_path, monkeypatch):
    """Function that makes this environment appear at tmp_path/name; links to it lie in tmp_path/links."""
    (tmp_path / "links").mkdir()
    monkeypatch.setattr(tools, "find_socket_folder", lambda: tmp_path / "links")

    def place(name: str) -> Path:
        (tmp_path / name).symlink_to(sys.prefix)
        relative = Path(sys.executable).relative_to(sys.prefix)
        monkeypatch.setattr(sys, "prefix", str(tmp_path / name))
        monkeypatch.setattr(sys, "executable", str(tmp_path / name / relative))
        return tmp_path / "links"

    return place


@pytest.mark.parametrize("name", NAMES)
def test_an_interpreter_in_any_folder_gets_a_path_that_a_shell_takes_as_it_is(environment_at, name):
    links = environment_at(name)
    found = find_plain_interpreter()
    assert Path(found).is_relative_to(links) and find_plain_interpreter() == found
    command = f"{found} -c 'import numpy, sys; print(sys.executable)'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == found


def test_a_plain_path_is_kept(environment_at):
    links = environment_at("shop")
    assert find_plain_interpreter() == sys.executable and not any(links.iterdir())


@pytest.mark.parametrize("executable", ["", "/opt/my python/bin/python"])
def test_an_interpreter_outside_its_environment_is_kept(environment_at, monkeypatch, executable):
    environment_at("my shop")
    monkeypatch.setattr(sys, "executable", executable)
    assert find_plain_interpreter() == executable


def test_a_link_of_somebody_else_is_not_followed(environment_at, monkeypatch):
    links = environment_at("my shop")
    link = Path(find_plain_interpreter()).parents[1]
    link.unlink()
    link.symlink_to("/usr")
    with pytest.raises(HandsellError, match=r"cannot use the link .* \(taken\)"):
        find_plain_interpreter()
    link.unlink()
    link.mkdir()
    with pytest.raises(HandsellError, match="cannot use the link"):
        find_plain_interpreter()
    link.rmdir()
    find_plain_interpreter()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(HandsellError, match="cannot use the link"):
        find_plain_interpreter()
    assert links.is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("tool", MODULES)
def test_the_tools_start_without_their_scripts(tool, tmp_path):
    (tmp_path / "click.py").write_text("raise SystemExit('a module of the working directory')")
    done = subprocess.run([*start_command(tool), "--help"], capture_output=True, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == 0 and "Usage:" in done.stdout, done.stderr
