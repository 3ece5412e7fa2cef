"""kill -9 of a backup, a restore and a trim at random moments: each is repeated, and nothing is lost."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import closing

import pytest

from backed_up_shop import build_event, read_event_ids, read_tables, write_shop
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader, open_writer
from handsell.maintenance.backup import back_up
from handsell.maintenance.backup_manifest import NAME, BackupError
from handsell.maintenance.restore import restore

pytestmark = pytest.mark.slow
ROUNDS = 12
EVENTS = 3_000


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    return write_shop(tmp_path / "shop", EVENTS)


def run_and_kill(work, *arguments, whole_s: float) -> bool:
    """Run in another process, and kill it within the time that the whole takes; return whether it was killed."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    time.sleep(random.uniform(0, whole_s))
    killed = process.is_alive()
    if killed:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return killed


def measure_s(work, *arguments) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


def test_a_killed_backup_is_refused_or_whole(shop, tmp_path):
    expected = read_tables(shop)
    whole_s, killed = measure_s(back_up, shop, tmp_path / "first"), 0
    for number in range(ROUNDS):
        folder = tmp_path / f"round{number}"
        killed += run_and_kill(back_up, shop, folder, whole_s=whole_s)
        if (folder / NAME).exists():
            restore(shop, folder, replace=True)
        elif folder.exists():
            with pytest.raises(BackupError, match="incomplete"):
                restore(shop, folder, replace=True)
        assert read_tables(shop) == expected
    assert killed


def restore_and_replace(config, folder):
    restore(config, folder, replace=True)


def test_a_killed_restore_is_repeated(shop, tmp_path):
    back_up(shop, tmp_path / "backup")
    expected = read_tables(shop)
    whole_s, killed = measure_s(restore_and_replace, shop, tmp_path / "backup"), 0
    for number in range(ROUNDS):
        killed += run_and_kill(restore_and_replace, shop, tmp_path / "backup", whole_s=whole_s)
        if number % 2:
            restore_and_replace(shop, tmp_path / "backup")
        elif Layout(shop.state).event_log.exists():  # as before, or as of the backup: the same here
            assert read_tables(shop) == expected
    restore_and_replace(shop, tmp_path / "backup")
    assert read_tables(shop) == expected
    for aside in shop.state.parent.glob("shop.before-*"):
        shutil.rmtree(aside)


def trim_through(config, through):
    with closing(open_writer(config, lock_wait_s=10)) as log:
        log.trim("events", through).result()


def test_a_killed_trim_is_repeated_and_every_event_stays_known(shop):
    killed, through = 0, 0
    for _ in range(ROUNDS):
        through += 200
        killed += run_and_kill(trim_through, shop, through, whole_s=0.05)
        with closing(open_reader(shop)) as reader:
            rows = reader.measure()
        assert rows["events"] + rows["trimmed_keys"] == EVENTS + 1, "each event or its key is there, never both"
    trim_through(shop, through)
    assert set(read_event_ids(shop)) == {f"e{n}" for n in range(through, EVENTS + 1)}
    with closing(open_writer(shop)) as log:
        again = log.append([build_event(n) for n in range(0, EVENTS, 50)]).result()
    assert again.accepted == 0
    assert killed
