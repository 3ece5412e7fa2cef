"""Writers of online rows on several machines: one at a time, and a batch write of another machine is seen."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from filelock import Timeout

from handsell.config import load_config
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader
from handsell.events.store.postgresql.database_lock import DatabaseLock
from handsell.features.storage.row_writers import open_lock, read_batch_write, record_batch_write

HOLDER = """
import sys, time
from handsell.events.store.postgresql.database_lock import DatabaseLock
with DatabaseLock(sys.argv[1], "rows"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def url(postgresql) -> str:
    return postgresql.create_database()


def test_a_holder_excludes_others_and_may_enter_again(url):
    mine, other = DatabaseLock(url, "rows"), DatabaseLock(url, "rows")
    with mine, mine.acquire(timeout=0):
        with pytest.raises(Timeout), other.acquire(timeout=0.1):
            pass
        with DatabaseLock(url, "rows of another deployment").acquire(timeout=0):
            pass
    with other.acquire(timeout=0):
        pass


def test_another_waits_until_the_holder_ends(url):
    mine, other, entered = DatabaseLock(url, "rows"), DatabaseLock(url, "rows"), threading.Event()

    def wait() -> None:
        with other:
            entered.set()

    waiting = threading.Thread(target=wait)
    with mine:
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    waiting.join()


def test_the_lock_of_a_killed_process_is_free(url):
    program = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None and program.stdout.readline() == "held\n"
    lock = DatabaseLock(url, "rows")
    with pytest.raises(Timeout), lock.acquire(timeout=0.1):
        pass
    program.kill()
    program.wait()
    with lock.acquire(timeout=10):
        pass


def test_without_the_database_the_lock_is_an_error_with_a_remedy():
    with pytest.raises(EventStoreError, match="does not answer .* check that the server runs"):  # noqa: RUF043
        DatabaseLock("postgresql://127.0.0.1:9/none", "rows").acquire(timeout=0).__enter__()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_batch_write_is_seen_through_the_store(request, engine, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "here"))
    if engine == "postgresql":
        monkeypatch.setenv("HANDSELL_EVENT_STORE", request.getfixturevalue("postgresql").create_database())
    (tmp_path / "shop.toml").write_text('name = "shop"\n[data]\nformat = "world"\n')
    config = load_config(tmp_path / "shop.toml")
    before = time.time_ns() // 1_000
    record_batch_write(config, 7)
    if engine == "postgresql":
        monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "another machine"))
    with closing(open_reader(config)) as reader:
        found = read_batch_write(config, reader)
    assert found.log_offset == 7 and found.started_us >= before
    with open_lock(config), pytest.raises(Timeout):
        open_lock(config).acquire(timeout=0).__enter__()
