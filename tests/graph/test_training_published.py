"""A training that is killed goes on from its last complete step on another machine, through object storage alone."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployment import SMALLER_WORLD, write_config
from handsell.bundles.opening import open_bundles
from handsell.config import load_config
from handsell.storage.objects import Objects
from handsell.storage.published_state import STATE

pytestmark = pytest.mark.slow  # two trainings, of which one is killed
LIMIT_S = 280.0


def start_training(config: Path, home: Path, log: Path) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"HANDSELL_HOME": str(home)}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "handsell", "train", str(config)], stdout=output, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip


def kill(program: subprocess.Popen) -> None:
    if program.poll() is None:
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


def test_a_killed_training_goes_on_elsewhere(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_STORAGE", s3.create_folder())
    config = write_config(tmp_path, data=SMALLER_WORLD, partitions=6, two_tower=False)
    objects, logs = Objects(str(config.storage_uri)), [tmp_path / "first.log", tmp_path / "second.log"]
    first = start_training(config.source, tmp_path / "first", logs[0])
    try:
        until = time.monotonic() + LIMIT_S
        while b'"features/user_activity/' not in (((found := objects.read(STATE)) and found.content) or b""):
            assert first.poll() is None and time.monotonic() < until, logs[0].read_text()[-3_000:]
            time.sleep(0.2)
    finally:
        kill(first)
    second = start_training(config.source, tmp_path / "second", logs[1])
    try:
        second.wait(LIMIT_S)
    finally:
        kill(second)
    told = logs[1].read_text()
    assert second.returncode == 0, told[-4_000:]
    assert "newer in object storage, and fetched: catalog" in told
    for step in ("data", "features"):
        assert re.search(rf"\] {step}: unchanged, skipped", told), told[-4_000:]
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "third"))
    bundles = open_bundles(load_config(config.source))
    assert bundles.verify(str(bundles.live())).sources[0] == "popularity"
