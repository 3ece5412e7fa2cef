"""A copy of this process calls a function: its files stay, its other changes do not, and its errors are told."""

import sys

import pytest

from handsell.core.processes.process_copy import ProcessCopy

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
