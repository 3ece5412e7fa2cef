"""Backup while events are written, restore, and what happens where either is interrupted or a file is damaged."""

import shutil
import sqlite3
import threading
from contextlib import closing

import pyarrow.parquet as pq
import pytest

from backed_up_shop import build_event, flip_bit, read_event_ids, read_tables, write_shop
from handsell.bundles.store import BundleStore, Pointer
from handsell.config import load_config
from handsell.core.errors import BundleError
from handsell.core.paths import Layout
from handsell.events.store.interface import EventStoreError
from handsell.events.store.opening import open_reader, open_writer
from handsell.events.store.sqlite_file import connect_to_read
from handsell.maintenance import backup as backup_module
from handsell.maintenance import restore as restore_module
from handsell.maintenance.backup import back_up
from handsell.maintenance.backup_manifest import NAME, BackupError, describe_file, write_manifest
from handsell.maintenance.restore import restore
from handsell.maintenance.sqlite_tables import SqliteSnapshot
from handsell.maintenance.store_tables import TABLES, read_last_offsets


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    return write_shop(tmp_path / "shop")


@pytest.fixture
def elsewhere(shop, tmp_path):
    """The same config at another place, without any state."""
    path = tmp_path / "elsewhere" / shop.source.name
    path.parent.mkdir()
    shutil.copy(shop.source, path)
    return load_config(path)


def test_the_tables_of_a_backup_are_all_tables_of_a_store(shop):
    with closing(connect_to_read(Layout(shop.state).event_log)) as db:
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {name for name in there if not name.startswith("sqlite_")} - {"alembic_version"} == set(TABLES)


def test_a_restored_deployment_has_the_same_rows_files_and_live_bundle(shop, elsewhere, tmp_path):
    manifest = back_up(shop, tmp_path / "backup")
    assert manifest.rows["events"] == len(read_event_ids(shop)) == 21 and manifest.rows["trimmed_keys"] == 10
    restore(elsewhere, tmp_path / "backup")
    assert read_tables(elsewhere) == read_tables(shop)
    before, after = Layout(shop.state), Layout(elsewhere.state)
    pointer = BundleStore(after.bundles).pointer()
    was = BundleStore(before.bundles).pointer()
    assert pointer == Pointer(was.live, was.previous[-1:]), "the live bundle, and one to roll back to"
    assert BundleStore(after.bundles).list() == [*pointer.previous, pointer.live]
    for bundle in BundleStore(after.bundles).list():
        BundleStore(after.bundles).verify(bundle)
    for folder in ("catalog", "compacted", "data"):
        names = [p.relative_to(shop.state / folder) for p in (shop.state / folder).rglob("*") if p.is_file()]
        assert names
        for name in (name for name in names if name.name != ".lock"):
            assert (elsewhere.state / folder / name).read_bytes() == (shop.state / folder / name).read_bytes()
    with closing(sqlite3.connect(after.feast / "online.db")) as online:
        assert online.execute("SELECT * FROM rows").fetchall() == [("u1", "x")]
    assert (after.feast / "registry.db").read_bytes() == b"registry"


def test_a_restored_store_goes_on_where_it_was(shop, elsewhere, tmp_path):
    manifest = back_up(shop, tmp_path / "backup")
    restore(elsewhere, tmp_path / "backup")
    with closing(open_writer(elsewhere)) as log:
        again = log.append([build_event(2), build_event(20)]).result()  # trimmed; stored
        new = log.append([build_event(1_000), build_event(1_001, "visitor")]).result()
    assert again.duplicates == 2
    assert new.offsets[0] == manifest.last_offsets["events"] + 1
    with closing(SqliteSnapshot(Layout(elsewhere.state).event_log)) as snapshot:
        assert read_last_offsets(snapshot)["events"] == new.offsets[-1]


def test_a_backup_has_every_event_that_was_acknowledged_before_it_began(shop, elsewhere, tmp_path):
    acknowledged, stop, first = [], threading.Event(), threading.Event()

    def write():
        with closing(open_writer(shop)) as log:
            n = 100
            while not stop.is_set():
                log.append([build_event(n)]).result()
                acknowledged.append(f"e{n}")
                n += 1
                if n == 150:
                    first.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert first.wait(30)
        before = list(acknowledged)
        manifest = back_up(shop, tmp_path / "backup")
    finally:
        stop.set()
        writer.join()
    assert len(acknowledged) > len(before), "events were written during the backup"
    restore(elsewhere, tmp_path / "backup")
    restored = read_event_ids(elsewhere)
    assert set(before) <= set(restored)
    assert restored == read_event_ids(shop)[: len(restored)], "the store as of one moment"
    with closing(open_writer(elsewhere)) as log:
        (offset,) = log.append([build_event(0, "somebody")]).result().offsets
    assert offset > manifest.last_offsets["events"], "no offset that a later part of the backup may name is used again"


def test_no_file_of_a_backup_can_be_damaged_or_missing_unnoticed(shop, elsewhere, tmp_path):
    folder = tmp_path / "backup"
    back_up(shop, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 15
    for path in files:
        kept = path.read_bytes()
        for at in {0, len(kept) // 2, len(kept) - 1}:
            flip_bit(path, at)
            with pytest.raises(BackupError, match=f"{path.name}.*(damaged|version)"):
                restore(elsewhere, folder)
            path.write_bytes(kept)
        path.unlink()
        with pytest.raises(BackupError, match="incomplete"):
            restore(elsewhere, folder)
        path.write_bytes(kept)
    assert not elsewhere.state.exists()
    restore(elsewhere, folder)


def test_a_damaged_deployment_is_not_backed_up_but_restored(shop, tmp_path):
    back_up(shop, tmp_path / "backup")
    rows, log = read_tables(shop), Layout(shop.state).event_log
    page = log.stat().st_size // 8_192 * 4_096
    flip_bit(log, page + 100)
    with pytest.raises(EventStoreError, match=r"is damaged .*handsell restore"):
        back_up(shop, tmp_path / "second")
    restore(shop, tmp_path / "backup", replace=True)
    assert read_tables(shop) == rows
    live = Layout(shop.state).bundles / str(BundleStore(Layout(shop.state).bundles).live())
    flip_bit(live / "ranker" / "ranker.ubj", 3)
    with pytest.raises(BundleError, match=r"ranker\.ubj is corrupt"):
        back_up(shop, tmp_path / "third")


def test_an_existing_state_is_replaced_only_on_request_and_moved_aside(shop, tmp_path):
    back_up(shop, tmp_path / "backup")
    with closing(open_writer(shop)) as log:
        log.append([build_event(500)]).result()
        with pytest.raises(BackupError, match="is running"):
            restore(shop, tmp_path / "backup", replace=True)
    with pytest.raises(BackupError, match="--replace"):
        restore(shop, tmp_path / "backup")
    assert "e500" in read_event_ids(shop)
    lines = []
    restore(shop, tmp_path / "backup", replace=True, report=lines.append)
    assert "e500" not in read_event_ids(shop)
    (moved,) = shop.state.parent.glob("shop.before-*")
    assert (moved / "events" / "log.db").exists() and str(moved) in lines[-1]


def test_a_backup_goes_to_a_new_folder_and_belongs_to_one_config(shop, tmp_path):
    folder = tmp_path / "backup"
    back_up(shop, folder)
    with pytest.raises(BackupError, match="has a backup"):
        back_up(shop, folder)
    other = tmp_path / "other.toml"
    other.write_text('name = "other"\n')
    with pytest.raises(BackupError, match=r"backup of shop.*named other"):
        restore(load_config(other), folder)
    with pytest.raises(BackupError, match="not a folder"):
        restore(shop, tmp_path / "nothing")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    with pytest.raises(BackupError, match="has files"):
        back_up(shop, tmp_path / "used")


class Killed(BaseException):
    """Ends a process at some point; nothing catches it."""


BACKUP_STEPS = ("_copy_store", "_copy_bundles", "_copy_data", "describe_file")
RESTORE_STEPS = ("check_files", "_load_sqlite", "_flush_folder", "_move_aside", "_put_in_place")


def fail_after(monkeypatch, module, name):
    real = getattr(module, name)

    def run(*args):
        real(*args)
        raise Killed

    monkeypatch.setattr(module, name, run)


@pytest.mark.parametrize("step", BACKUP_STEPS)
def test_an_interrupted_backup_is_none(shop, elsewhere, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patched:
        fail_after(patched, backup_module, step)
        with pytest.raises(Killed):
            back_up(shop, tmp_path / "backup")
    assert not (tmp_path / "backup" / NAME).exists()
    with pytest.raises(BackupError, match="incomplete"):
        restore(elsewhere, tmp_path / "backup")
    with pytest.raises(BackupError, match="interrupted backup"):
        back_up(shop, tmp_path / "backup")
    back_up(shop, tmp_path / "again")


@pytest.mark.parametrize("step", RESTORE_STEPS)
def test_an_interrupted_restore_changes_nothing_or_everything_and_can_be_repeated(shop, tmp_path, monkeypatch, step):
    back_up(shop, tmp_path / "backup")
    expected = read_tables(shop)
    with closing(open_writer(shop)) as log:
        log.append([build_event(500)]).result()
    with monkeypatch.context() as patched:
        fail_after(patched, restore_module, step)
        with pytest.raises(Killed):
            restore(shop, tmp_path / "backup", replace=True)
    assert ("e500" in read_event_ids(shop)) == (step not in ("_move_aside", "_put_in_place"))
    restore(shop, tmp_path / "backup", replace=True)
    assert read_tables(shop) == expected


def test_a_deployment_that_was_never_served_is_backed_up_without_a_store(shop, elsewhere, tmp_path):
    shutil.rmtree(Layout(shop.state).event_log.parent)
    back_up(shop, tmp_path / "backup")
    restore(elsewhere, tmp_path / "backup")
    assert not Layout(elsewhere.state).event_log.exists()
    assert BundleStore(Layout(elsewhere.state).bundles).live()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_a_backup_of_an_earlier_version_is_upgraded(shop, elsewhere, tmp_path, request, engine):
    folder, old = tmp_path / "backup", ("events", "slates", "blocks")
    manifest = back_up(shop, folder)
    for path in (folder / "store").iterdir():
        if path.stem not in old:
            path.unlink()
    blocks = folder / "store" / "blocks.parquet"
    pq.write_table(pq.read_table(blocks).drop_columns(["offset"]), blocks)
    files = {name: entry for name, entry in manifest.files.items() if (folder / name).exists()}
    files["store/blocks.parquet"] = describe_file(blocks)
    rows = {table: manifest.rows[table] for table in old}
    write_manifest(
        folder, manifest.model_copy(update={"revision": "0001", "rows": rows, "last_offsets": {}, "files": files})
    )
    config = request.getfixturevalue("in_postgresql") if engine == "postgresql" else elsewhere
    restore(config, folder)
    assert read_event_ids(config) == read_event_ids(shop)
    with closing(open_reader(shop)) as reader, closing(open_writer(config)) as log:
        last = reader.last_offset()
        assert log.append([build_event(1_000)]).result().offsets == (last + 1,)
        assert log.merge_identity("visitor", "u1", 7).result()
    with closing(open_reader(shop)) as before, closing(open_reader(config)) as after:
        users = {blocks.user_id for blocks in before.read_changed_blocks()}
        restored = after.read_changed_blocks()
        assert users and {blocks.user_id for blocks in restored} == users
        assert [blocks.offset for blocks in restored] == list(range(1, len(users) + 1))


@pytest.fixture
def in_postgresql(elsewhere, postgresql):
    """The config elsewhere, with its event store in an empty database."""
    elsewhere.source.write_text(f'{elsewhere.source.read_text()}[events]\nstore = "{postgresql.create_database()}"\n')
    return load_config(elsewhere.source)


def test_a_backup_moves_a_deployment_to_postgresql_and_back(shop, in_postgresql, tmp_path):
    first = back_up(shop, tmp_path / "backup")
    restore(in_postgresql, tmp_path / "backup")
    assert read_event_ids(in_postgresql) == read_event_ids(shop)
    with closing(open_writer(in_postgresql)) as log:
        again = log.append([build_event(2), build_event(20)]).result()
        new = log.append([build_event(1_000)]).result()
    assert again.duplicates == 2 and new.offsets == (first.last_offsets["events"] + 1,)
    second = back_up(in_postgresql, tmp_path / "second")
    assert second.engine == "postgresql" and second.rows == {**first.rows, "events": first.rows["events"] + 1}
    restore(shop, tmp_path / "second", replace=True)
    assert read_event_ids(shop) == read_event_ids(in_postgresql)


def test_a_postgresql_store_with_rows_or_users_is_not_overwritten(shop, in_postgresql, tmp_path):
    back_up(shop, tmp_path / "backup")
    with closing(open_writer(in_postgresql)) as log:
        log.append([build_event(1)]).result()
        with pytest.raises(EventStoreError, match="other connections"):
            restore(in_postgresql, tmp_path / "backup")
    with pytest.raises(EventStoreError, match="table events has rows"):
        restore(in_postgresql, tmp_path / "backup")
    assert not in_postgresql.state.exists() and read_event_ids(in_postgresql) == ["e1"]
    restore(in_postgresql, tmp_path / "backup", replace=True)
    assert read_event_ids(in_postgresql) == read_event_ids(shop)


def test_a_backup_of_postgresql_is_as_of_one_moment(shop, in_postgresql, tmp_path):
    """Two writers commit in turns; the rows of the backup are the first ones, without a gap."""
    stop, begun = threading.Event(), threading.Barrier(3)

    def write(user):
        with closing(open_writer(in_postgresql)) as log:
            log.append([build_event(-1, user)]).result()
            begun.wait()
            n = 0
            while not stop.is_set():
                n += 1
                log.append([build_event(n, user)]).result()

    writers = [threading.Thread(target=write, args=(user,)) for user in ("u1", "u2")]
    for writer in writers:
        writer.start()
    try:
        begun.wait()
        manifest = back_up(in_postgresql, tmp_path / "backup")
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    with closing(open_reader(in_postgresql)) as reader:
        before = reader.scan(limit=100_000)
    restore(in_postgresql, tmp_path / "backup", replace=True)
    with closing(open_reader(in_postgresql)) as reader:
        after = reader.scan(limit=100_000)
    count = manifest.rows["events"]
    assert count < len(before["offset"])
    assert after["offset"] == before["offset"][:count] and after["key"] == before["key"][:count]
