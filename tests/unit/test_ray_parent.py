"""The small parent of Ray's processes: it ends them all, however one of them or it itself ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from handsell.serving import ray_parent

# starts two processes with the kernel's tie, as `ray start` does, and replaces itself
START = """
import ctypes, os, signal, subprocess, sys
tie = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
children = [subprocess.Popen(["sleep", "60"], preexec_fn=tie) for _ in range(2)]
named = [f"{name}={child.pid}" for name, child in zip(("raylet", "monitor"), children)]
print(*(child.pid for child in children), flush=True)
os.execv(sys.executable, [sys.executable, "-I", "-S", sys.argv[1], sys.argv[2], *named])
"""


@pytest.fixture
def family(tmp_path):
    """The parent and its two children: raylet, monitor."""
    parent = subprocess.Popen(
        [sys.executable, "-c", START, ray_parent.__file__, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    while not handles_sigterm(parent.pid):
        time.sleep(0.01)
    yield parent, children
    for child in children:
        if is_running(child):
            child.kill()
    parent.kill()
    parent.wait()
    parent.stdout.close()


def handles_sigterm(pid: int) -> bool:
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> signal.SIGTERM - 1 & 1)


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_for_end(processes) -> None:
    psutil.wait_procs(processes, timeout=20)
    assert not [process for process in processes if is_running(process)]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_its_children_end_with_it(family, how):
    parent, children = family
    parent.send_signal(how)
    assert parent.wait(20) == (1 if how == signal.SIGTERM else -how)
    wait_for_end(children)


def test_when_a_child_is_killed_the_others_end_and_a_log_says_so(family, tmp_path):
    parent, (raylet, monitor) = family
    raylet.kill()
    assert parent.wait(20) == 1
    wait_for_end([monitor])
    assert "raylet [exit code=-9]" in (tmp_path / ray_parent.LOG).read_text()


def test_a_child_that_was_asked_to_end_leaves_the_others(family):
    parent, (raylet, monitor) = family
    monitor.terminate()
    wait_for_end([monitor])
    assert parent.poll() is None and is_running(raylet)


def test_it_needs_little_memory(family):
    parent, _ = family
    assert psutil.Process(parent.pid).memory_full_info().uss < 10 * 2**20


def test_the_raylet_is_ended_first(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "kill", lambda pid, how: ended.append(pid))
    monkeypatch.setattr(os, "waitpid", lambda pid, how: (pid, 0))
    ray_parent.end({1: "monitor", 2: "gcs_server", 3: "raylet"})
    assert ended == [3, 2, 1]


def test_it_imports_nothing_of_the_package():
    source = Path(ray_parent.__file__).read_text()
    assert "import handsell" not in source and "from handsell" not in source
