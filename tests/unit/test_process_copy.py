"""A copy of this process calls a function: its files stay, its other changes do not, and its errors are told."""

import sys

import pytest

from handsell.core.processes import process_copy
from handsell.core.processes.process_copy import ProcessCopy, can_copy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux alone")


def test_the_copy_writes_files_and_changes_nothing_else(tmp_path, capfd):
    seen = []

    def work():
        seen.append(1)
        print("from the copy")
        (tmp_path / "out").write_text("done")

    done = ProcessCopy(work).wait()
    assert (done.returncode, done.stdout, done.stderr) == (0, "from the copy\n", "")
    assert (tmp_path / "out").read_text() == "done" and seen == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("leave", "status", "told"), [(7, 7, ""), (None, 0, ""), ("no data", 1, "no data\n")])
def test_the_status_is_that_with_which_the_function_leaves(leave, status, told):
    done = ProcessCopy(lambda: sys.exit(leave)).wait()
    assert (done.returncode, done.stderr) == (status, told)


def test_an_error_is_told_with_its_traceback():
    done = ProcessCopy(lambda: 1 / 0).wait()
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_a_copy_that_is_stopped_has_ended(tmp_path):
    def wait():
        (tmp_path / "begun").touch()
        while True:
            pass

    copy = ProcessCopy(wait)
    copy.stop()
    with pytest.raises(ChildProcessError):
        copy.wait()


@pytest.mark.parametrize(("threads", "safe"), [("1", True), ("2", False), (None, False)])
def test_a_process_with_threads_is_not_copied(monkeypatch, threads, safe):
    """OpenMP with several threads waits for ever in a copy, where they are missing."""
    monkeypatch.setattr(process_copy.threading, "active_count", lambda: 1)  # whatever other tests have started
    monkeypatch.delenv("OMP_NUM_THREADS")
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert can_copy() == safe
    monkeypatch.setattr(process_copy.threading, "active_count", lambda: 2)
    assert not can_copy()
