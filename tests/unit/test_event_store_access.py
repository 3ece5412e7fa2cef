"""API keys, their usage and the audit log in the event store, the same on both engines."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from event_stores import make_event, open_postgresql, open_sqlite
from handsell.access.api_key import create_key, rotate_key
from handsell.access.audit_entry import AuditEntry
from handsell.events.store.schema import HEAD


def make_key(name="shop", **more):
    return create_key(name, "server", ("recommend", "events"), 1_000, **more)


def test_keys_are_read_as_they_were_put_and_only_what_changed(writer, reader):
    key, text = make_key(rate_per_s=2.5, quota_per_day=100, expires_us=2_000)
    other, _ = make_key("ü '2'")
    assert writer.put_key(key).result().offsets == (1,) and writer.put_key(other).result().offsets == (2,)
    assert reader.read_keys() == [replace(key, offset=1), replace(other, offset=2)]
    rotated, _ = rotate_key(key, 1_500, overlap_s=1.0)
    writer.put_key(rotated).result()
    (changed,) = reader.read_keys(after_offset=2)
    assert changed == replace(rotated, offset=3) and changed.former_secret == key.secret
    assert text.split("_", 2)[2] not in repr(reader.read_keys())


def test_a_revoked_key_stays_revoked(writer, reader):
    key, _ = make_key()
    writer.put_key(replace(key, revoked_us=5)).result()
    writer.put_key(rotate_key(key, 6, 0)[0]).result()  # by somebody who had read the key before
    assert [one.revoked_us for one in reader.read_keys()] == [5]


def test_gateways_add_up_their_requests_of_a_day(writer, reader):
    writer.add_usage(20_000, {"a": 3, "b": 1}).result()
    writer.add_usage(20_000, {"a": 4}).result()
    writer.add_usage(20_001, {"a": 1}).result()
    assert reader.read_usage(20_000) == {"a": 7, "b": 1} and reader.read_usage(20_001) == {"a": 1}
    writer.add_usage(20_002, {"a": 1}).result()
    assert reader.read_usage(20_000) == {} and reader.read_usage(20_001) == {"a": 1}  # the day before yesterday


def test_the_audit_log_keeps_the_order(writer, reader):
    entries = [AuditEntry(n, None if n else "k1", "web", "item.put", f"i{n}", "200", "") for n in range(3)]
    assert writer.append_audit(entries[:2]).result().offsets == (1, 2)
    writer.append_audit(entries[2:]).result()
    assert reader.read_audit() == [replace(entry, offset=n + 1) for n, entry in enumerate(entries)]
    assert [entry.object for entry in reader.read_audit(after_offset=1, limit=1)] == ["i1"]


@pytest.fixture(params=["sqlite", "postgresql"])
def former_store(request, tmp_path):
    """A store of the revision before keys, with an event."""
    if request.param == "sqlite":
        from handsell.events.store.sqlite_file import connect_to_write
        from handsell.events.store.sqlite_upgrade import prepare

        path = tmp_path / "log.db"
        with closing(connect_to_write(Path(path))) as db:
            prepare(db, path, "0003")
            db.execute(EVENT)
        return open_sqlite(path)
    from handsell.events.store.postgresql.connection import upgrade_database

    url = request.getfixturevalue("postgresql").create_database()
    with psycopg.connect(url) as connection:
        upgrade_database(connection, "0003")
        connection.execute(EVENT)
        connection.execute(LAST)
        connection.commit()
    return open_postgresql(url)


EVENT = (
    """INSERT INTO events ("offset", event_id, user_id, item_id, type, time, key) """
    "VALUES (7, 'e', 'u1', 'i', 'click', 1, 9)"
)
LAST = "UPDATE offsets SET last = 7 WHERE name = 'events'"


def test_a_store_of_the_revision_before_keys_gets_their_tables(former_store):
    assert HEAD >= "0004"
    with closing(former_store.open_writer()) as writer, closing(former_store.open_reader()) as reader:
        assert writer.put_key(make_key()[0]).result().offsets == (1,)
        assert reader.read_tail("u1")["offset"] == [7] and reader.read_audit() == []
        assert writer.append([make_event(2)]).result().accepted == 1
