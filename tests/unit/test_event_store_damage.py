"""Flipped bits in the files of the event store are found, and refused in words that say what to restore."""

import multiprocessing
import os
import re
import shutil
import signal
from contextlib import closing

import psycopg
import pytest

from event_stores import make_event, make_slate, open_postgresql, open_sqlite
from handsell.events.store.interface import EventStoreError
from postgresql_server import PostgresServer, find_programs

EVENTS = 3_000
RESTORE = r"is damaged \(.*\): stop the service, .*restore the store from the latest backup with handsell restore"


def flip_bit(path, position, bit):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


def read_everything(store):
    with closing(store.open_reader()) as reader:
        users = [f"u{n}" for n in range(50)]
        return (
            reader.scan(limit=10_000), reader.read_tails(users, [0] * 50), reader.read_slates(), reader.last_offset(),
            reader.read_slates_of_users(users, [0] * 50, [9_999] * 50), reader.measure()["events"],
        )  # fmt: skip


def fill(store):
    writer = store.open_writer()
    for begin in range(0, EVENTS, 100):
        writer.append([make_event(n, user=f"u{n % 50}") for n in range(begin, begin + 100)]).result()
        writer.append_slates([make_slate(begin, user=f"u{begin % 50}")]).result()
    return writer


def copy_files(source, target):
    target.mkdir()
    for file in source.iterdir():
        shutil.copy(file, target)
    return target / "log.db"


def test_a_flipped_bit_in_the_sqlite_file_is_never_read_as_data(tmp_path, rng):
    folder = tmp_path / "store"
    store = open_sqlite(folder / "log.db")
    fill(store).close()
    whole, size = read_everything(store), (folder / "log.db").stat().st_size
    found = 0
    for n, position in enumerate([16, 20, 21, 24, 60, 105, *rng.integers(0, size, 40).tolist()]):
        path = copy_files(folder, tmp_path / f"copy{n}")
        flip_bit(path, position, n % 8)
        try:
            assert read_everything(open_sqlite(path)) == whole, position
        except EventStoreError as error:
            found += 1
            assert re.search(RESTORE, str(error)), (position, error)
    assert found >= 35


def test_an_append_to_a_damaged_page_is_refused(tmp_path):
    folder = tmp_path / "store"
    store = open_sqlite(folder / "log.db")
    fill(store).close()
    for page in range(1, (folder / "log.db").stat().st_size // 4_096):
        flip_bit(folder / "log.db", page * 4_096 + 2_000, 3)
    with pytest.raises(EventStoreError, match=RESTORE), closing(store.open_writer()) as writer:
        writer.append([make_event(EVENTS)]).result()


def _fill_and_wait(path, done):
    fill(open_sqlite(path))
    done.set()
    signal.pause()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a store whose writer was killed, with its log of writes."""
    folder = tmp_path_factory.mktemp("killed") / "store"
    context = multiprocessing.get_context("spawn")
    done = context.Event()
    process = context.Process(target=_fill_and_wait, args=(folder / "log.db", done))
    process.start()
    assert done.wait(300)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return folder


def test_a_flipped_bit_in_the_log_of_writes_loses_no_commit_in_silence(killed, tmp_path, rng):
    size = (killed / "log.db-wal").stat().st_size
    assert size > 100_000
    refused = 0
    for n, position in enumerate([0, 9, 17, 25, size - 10, *rng.integers(0, size, 25).tolist()]):
        folder = tmp_path / f"copy{n}"
        path = copy_files(killed, folder)
        # the copy has another inode: its counter must count for it
        counter = folder / "log.commits"
        own, commits = path.stat().st_ino, int.from_bytes(counter.read_bytes()[8:16], "little")
        counter.write_bytes(b"".join(value.to_bytes(8, "little") for value in (own, commits, own ^ commits)))
        (folder / "log.db-shm").unlink(missing_ok=True)
        flip_bit(folder / "log.db-wal", position, n % 8)
        try:
            with closing(open_sqlite(path).open_writer()) as writer:
                again = [make_event(n, user=f"u{n % 50}") for n in range(EVENTS)]
                assert writer.append(again).result().duplicates == EVENTS, position
        except EventStoreError as error:
            refused += 1
            assert "lacks" in str(error) or "damaged" in str(error)
    assert refused >= 5


def test_a_store_that_was_replaced_by_its_backup_is_not_taken_for_damaged(killed, tmp_path):
    path = copy_files(killed, tmp_path / "store")
    with closing(open_sqlite(path).open_writer()) as writer:
        assert writer.append([make_event(0, user="u0")]).result().duplicates == 1


@pytest.mark.slow
def test_a_flipped_bit_in_a_page_of_postgresql_is_refused(rng):
    server = PostgresServer(find_programs(), "fsync=off")
    try:
        server.start()
        store = open_postgresql(server.create_database())
        fill(store).close()
        whole = read_everything(store)
        names = ("events", "events_of_user", "slates")
        with psycopg.connect(store.address) as connection:
            paths = [connection.execute("SELECT pg_relation_filepath(%s)", (name,)).fetchone()[0] for name in names]
        for relative in paths:
            server.stop()
            path = server.folder / "data" / relative
            before = path.read_bytes()
            for position in rng.integers(0, len(before), 40).tolist():
                flip_bit(path, position, 3)
            server.start()
            with pytest.raises(EventStoreError, match=RESTORE):
                read_everything(store)
            server.stop()
            path.write_bytes(before)
            server.start()
            assert read_everything(store) == whole
    finally:
        server.remove()
