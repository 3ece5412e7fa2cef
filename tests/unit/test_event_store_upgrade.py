"""A store that an earlier version wrote opens under this one; one of a newer version is refused."""

import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from event_stores import make_event, open_postgresql, open_sqlite
from handsell.events.store.interface import CatalogChange, EventStoreError
from handsell.events.store.schema import HEAD, KNOWN

FROZEN = Path(__file__).parents[1] / "frozen_stores"
USER = "ü '2'"


def read_frozen(name):
    return (FROZEN / f"{name}.sql").read_text()


def freeze_sqlite(path, name):
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as old:
        old.executescript(read_frozen(name))
        old.execute("PRAGMA journal_mode=WAL")
    return open_sqlite(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def old_store(request, tmp_path):
    if request.param == "sqlite":
        return freeze_sqlite(tmp_path / "events" / "log.db", "before_revisions")
    url = request.getfixturevalue("postgresql").create_database()
    with psycopg.connect(url) as connection:
        connection.execute(read_frozen("first_revision_postgresql"))
    return open_postgresql(url)


def test_the_revisions_are_known():
    config = Config()
    config.set_main_option("script_location", "handsell.events.store:migrations")
    script = ScriptDirectory.from_config(config)
    assert [one.revision for one in script.walk_revisions()] == list(reversed(KNOWN)) and KNOWN[-1] == HEAD


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_a_store_of_the_former_version_keeps_its_rows(old_store, first):
    with closing(old_store.open_reader()) as reader:
        if first == "writer":
            old_store.open_writer().close()
        tail = reader.read_tail("u1")
        assert tail["offset"] == [1, 3, 5, 6, 9] and tail["event_id"] == ["e0", "e2", None, "e7", "late"]
        assert tail["key"][0] == 3570533916463097233 and tail["position"][:2] == [0, 2]
        assert reader.read_tail(USER)["value"] == [0.5, 1.5] and reader.last_offset() == 9
        assert reader.read_user_slates("u1", 0, 9_999) == [(1_001, "home", ["a", "b"])]
        assert reader.count_lost_impressions() == {"g1": 1} and reader.read_blocks(["u1"]) == {"u1": (["c1"], ["t1"])}
        assert [(blocks.user_id, blocks.offset) for blocks in reader.read_changed_blocks()] == [("u1", 1)]
        with closing(old_store.open_writer()) as writer:
            again = writer.append([
                {"event_id": "e0", "user_id": "u1", "item_id": "i0", "type": "click", "time": 1_000},
                {"event_id": "e7", "user_id": "u1", "item_id": "i7", "type": "buy", "time": 9, "sent_time": None},
                make_event(50),
            ]).result()  # fmt: skip
            assert again.offsets == (-1, -1, 10)
            assert writer.merge_identity("u1", "u3", 5).result().accepted == 6
            assert writer.append_changes([CatalogChange("item", "a", "put", {}, 5)]).result().offsets == (1,)
            assert [(blocks.user_id, blocks.offset) for blocks in reader.read_changed_blocks(1)] == [("u3", 2)]
            assert writer.trim("events", 9).result().accepted == 2
        assert reader.last_offset() == 16


def test_a_sqlite_file_without_keys_gets_them_and_checksums(tmp_path):
    path = tmp_path / "events" / "log.db"
    store = freeze_sqlite(path, "without_keys")
    with closing(store.open_writer()) as writer:
        done = writer.append([make_event(2), make_event(2, item_id="i9"), make_event(3)]).result()
    assert done.offsets == (-1, 9, 10)
    with closing(store.open_reader()) as reader:
        tail = reader.read_tail("u1")
        assert tail["offset"] == [3, 8, 9, 10] and None not in tail["key"]
    assert path.read_bytes()[20] == 8  # bytes of each page that hold its checksum


def test_a_store_of_a_newer_version_is_refused_in_words(event_store):
    with closing(event_store.open_writer()) as writer:
        writer.append([make_event(1)]).result()
    with closing(event_store.open_reader()) as reader:
        assert reader.last_offset() == 1
    set_revision(event_store, "0099")
    for use in (lambda: event_store.open_reader().last_offset(), lambda: append_one(event_store)):
        with pytest.raises(EventStoreError, match=rf"newer version of handsell: expected revision {HEAD}.* got 0099"):
            use()


def append_one(store):
    with closing(store.open_writer()) as writer:
        return writer.append([make_event(2)]).result()


def set_revision(store, revision):
    if store.engine == "postgresql":
        from handsell.events.store.postgresql import connection

        connection._prepared.clear()
        with psycopg.connect(store.address) as db:
            db.execute("UPDATE alembic_version SET version_num = %s", (revision,))
        return
    from handsell.events.store.sqlite_file import connect_to_write

    with closing(connect_to_write(Path(store.address))) as db:
        db.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def _append(url, number, begin, results):
    with closing(open_postgresql(url).open_writer()) as writer:
        begin.wait()
        try:
            results.put(writer.append([make_event(number)]).result().accepted)
        except EventStoreError as error:
            results.put(str(error))


def test_gateways_that_start_at_once_upgrade_once(postgresql):
    url = postgresql.create_database()
    context = multiprocessing.get_context("spawn")
    begin, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_append, args=(url, n, begin, results)) for n in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=300) for _ in processes] == [1] * 3
    for process in processes:
        process.join()
    with closing(open_postgresql(url).open_reader()) as reader:
        assert reader.scan()["offset"] == [1, 2, 3]
