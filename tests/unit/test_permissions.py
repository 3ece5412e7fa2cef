"""Folders that cannot be written are named with both users, before a job starts."""

import importlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from handsell.config.permissions import describe_unwritable, find_unwritable, require_writable
from handsell.core.errors import ConfigError
from handsell.doctor.setting_checks import find_setting_problems
from handsell.jobs import pipeline

OTHER = 1234  # no user of this machine


@pytest.fixture
def open_folder():
    """A folder that every user can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="handsell-permissions-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def another_user():
    """Run the block as a user to whom nothing belongs; skips the test where this process may not change its user."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_of_another_user_is_named_with_both_users_and_the_remedy(open_folder):
    with another_user():
        problem = describe_unwritable(open_folder)
    assert "user root (uid 0)" in problem and f"uid {OTHER}" in problem and "mode drwxr-xr-x" in problem
    assert f"chown -R {OTHER}:" in problem and "HANDSELL_HOME" in problem


def test_a_state_folder_that_can_be_created_is_no_problem(open_folder):
    assert find_unwritable(open_folder / "home" / "shop") == []
    open_folder.chmod(0o777)
    with another_user():
        assert find_unwritable(open_folder / "home" / "shop") == []


def test_a_missing_state_folder_counts_as_the_nearest_one_above_it(open_folder):
    with another_user():
        (problem,) = find_unwritable(open_folder / "home" / "shop")
    assert problem.startswith(f"cannot create {open_folder}/home/shop: {open_folder} cannot be written")


def test_a_mount_inside_the_state_folder_is_found(open_folder):
    (open_folder / "events").mkdir()
    open_folder.chmod(0o777)
    with another_user():
        (problem,) = find_unwritable(open_folder)
    assert problem.startswith(f"{open_folder}/events cannot be written")


def test_a_file_in_place_of_the_folder_is_named(open_folder):
    (open_folder / "shop").write_text("")
    (problem,) = find_unwritable(open_folder / "shop" / "state")
    assert "shop is a file: expected a folder" in problem


def test_training_and_doctor_say_it_before_anything_starts(open_folder, configured, monkeypatch):
    config = configured('name = "shop"')
    monkeypatch.setenv("HANDSELL_HOME", str(open_folder))
    monkeypatch.setattr(pipeline, "open_cluster", lambda _: pytest.fail("a cluster was started"))
    with another_user():
        with pytest.raises(ConfigError, match="cannot create"):
            pipeline.run_pipeline(config)
        with pytest.raises(ConfigError, match="cannot create"):
            require_writable(config)
        found = [problem for problem in find_setting_problems(config) if problem.name == "cannot write"]
    assert [problem.severity for problem in found] == ["error"]


def test_an_error_of_a_task_names_its_file_without_a_traceback(monkeypatch, capsys):
    command_line = importlib.import_module("handsell.cli.app")
    error = RayTaskError("generate", "traceback of the worker", PermissionError(13, "Permission denied", "/x/.data-1"))

    def fail(arguments):
        raise error.as_instanceof_cause()

    monkeypatch.setattr(command_line, "app", fail)
    monkeypatch.setattr(command_line, "_restart_if_needed", lambda: None)
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == 1
    assert "cannot use /x/.data-1: Permission denied" in capsys.readouterr().err
