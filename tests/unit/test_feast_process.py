"""The `feast` command runs in a copy of a process that has imported Feast, and elsewhere in a new one, alike."""

import os
import sys
import threading
from pathlib import Path

import pytest

from handsell.core.processes import process_copy
from handsell.features.feast_import import feast  # noqa: F401 - so that the copy need not import it
from handsell.features.storage import feast_process


def ask(monkeypatch, copies, *arguments):
    monkeypatch.setattr(feast_process, "can_copy", lambda: copies)
    return feast_process.run_feast(arguments, {"FEAST_TEST": "1"})


def test_a_copy_answers_as_a_new_process_does(monkeypatch):
    copy, new = (ask(monkeypatch, copies, "apply", "--nothing") for copies in (True, False))
    assert copy == new and copy.returncode == 2 and "--nothing" in copy.stderr


def test_a_copy_leaves_this_process_as_it_was(monkeypatch, capfd):
    before = Path.cwd()
    done = ask(monkeypatch, True, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout and done.stderr == ""
    assert Path.cwd() == before and "FEAST_TEST" not in os.environ
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux alone")
def test_a_process_with_threads_is_not_copied():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    before = process_copy.can_copy()
    thread.start()
    try:
        assert not process_copy.can_copy()
    finally:
        stop.set()
        thread.join()
    assert process_copy.can_copy() == before
