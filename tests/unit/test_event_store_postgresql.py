"""PostgreSQL: many processes append at once; a server that is away or hangs costs no event and blocks nothing."""

import gc
import multiprocessing
import os
import signal
import time
from contextlib import closing

import psycopg
import pytest

from event_stores import make_event, make_slate, open_postgresql
from handsell.events.store.interface import CatalogChange, EventStoreError
from postgresql_server import PostgresServer, find_programs

PROCESSES, APPENDS = 3, 120


def _append_all(url, number, begin):
    with closing(open_postgresql(url).open_writer()) as writer:
        begin.wait()
        done = []
        for n in range(APPENDS):
            own = [make_event((number + 1) * 10_000 + n * 10 + i) for i in range(n % 4 + 1)]
            shared = make_event(n)  # every process sends it
            done.append(writer.append([*own, shared]))
            served = make_slate((number + 1) * 10_000 + n, gateway=f"g{number}", sequence=n + 1)
            done.append(writer.append_slates([served]))
            if n % 10 == number:
                done[-2].result()
        assert all(one.result() for one in done)


def test_a_follower_misses_nothing_while_processes_append(postgresql):
    store = open_postgresql(postgresql.create_database())
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(PROCESSES + 1)
    processes = [context.Process(target=_append_all, args=(store.address, n, begin)) for n in range(PROCESSES)]
    for process in processes:
        process.start()
    with closing(store.open_reader()) as reader:
        reader.last_offset()  # the tables are there
        begin.wait(300)
        events, offset, slates, slate_offset, ended = [], 0, [], 0, False
        while not ended:
            ended = not any(process.is_alive() for process in processes)  # then read once more
            rows = reader.scan(offset, 50)
            while rows["offset"]:
                events += zip(rows["offset"], rows["event_id"], strict=True)
                offset = rows["offset"][-1]
                rows = reader.scan(offset, 50)
            for row in reader.read_slates(slate_offset, 10_000):
                slates.append(row)
                slate_offset = row[0]
        assert [process.exitcode for process in processes] == [0] * PROCESSES
        ids = [event_id for _, event_id in events]
        own = sum(n % 4 + 1 for n in range(APPENDS))
        assert len(ids) == len(set(ids)) == PROCESSES * own + APPENDS
        assert [o for o, _ in events] == list(range(1, len(ids) + 1)) == reader.scan(0, 10_000)["offset"]
        assert len(slates) == PROCESSES * APPENDS and reader.count_lost_impressions() == {
            f"g{n}": 0 for n in range(PROCESSES)
        }


def test_a_server_that_is_away_refuses_in_words_and_is_found_again(postgresql):
    server = PostgresServer(find_programs(), "fsync=off")
    try:
        server.start()
        store = open_postgresql(server.create_database())
        writer, reader = store.open_writer(), store.open_reader()
        assert writer.append([make_event(1)]).result().accepted == 1 and reader.last_offset() == 1
        server.stop("immediate")  # a crash
        started = time.monotonic()
        failures = [writer.append([make_event(n)]) for n in range(2, 300)]
        for failure in failures:
            with pytest.raises(EventStoreError, match=r"does not answer .* check that the server runs; send again"):
                failure.result()
        with pytest.raises(EventStoreError, match="does not answer"):
            reader.read_tail("u1")
        assert time.monotonic() - started < 10
        server.start()
        assert writer.append([make_event(n) for n in range(1, 300)]).result().accepted == 298
        assert len(reader.read_tail("u1")["offset"]) == 299
        server.stop()
        server.start()  # between two calls: nobody notices
        assert writer.append([make_event(1_000)]).result().accepted == 1 and reader.last_offset() == 300
        writer.close()
        reader.close()
    finally:
        server.remove()


def test_an_address_where_nobody_listens_is_named_without_its_password():
    store = open_postgresql("postgresql://shop:secret@127.0.0.1:1/events")
    with (
        closing(store.open_writer()) as writer,
        pytest.raises(EventStoreError, match=r"127\.0\.0\.1:1/events") as refused,
    ):
        writer.append([make_event(1)]).result()
    assert "secret" not in str(refused.value)
    with closing(store.open_reader()) as reader, pytest.raises(EventStoreError, match="does not answer"):
        reader.last_offset()


def _hold_the_lock(url, locked):
    writer = open_postgresql(url).open_writer()
    writer.append([]).result()
    writer._connection.execute("BEGIN; SELECT last FROM offsets WHERE name = 'events' FOR UPDATE")
    locked.set()
    signal.pause()


def test_a_killed_gateway_lets_the_others_append(postgresql):
    url = postgresql.create_database()
    context = multiprocessing.get_context("spawn")
    locked = context.Event()
    holder = context.Process(target=_hold_the_lock, args=(url, locked))
    holder.start()
    assert locked.wait(300)
    with closing(open_postgresql(url).open_writer()) as writer:
        done = writer.append([make_event(1)])
        with pytest.raises(TimeoutError):
            done.result(0.3)
        os.kill(holder.pid, signal.SIGKILL)
        assert done.result(10).accepted == 1
    holder.join()


def test_the_connections_of_a_reader_end_with_it(postgresql):
    store = open_postgresql(postgresql.create_database())
    with psycopg.connect(store.address, autocommit=True) as connection:

        def settle_at(expected):
            """Wait until the server counts that many other connections: it notices an ended one some time later."""
            for _ in range(200):
                if (count := count_others(connection)) == expected:
                    break
                time.sleep(0.05)
            return count

        for end in (lambda reader: reader.close(), lambda reader: None):
            assert settle_at(0) == 0
            reader = store.open_reader()
            reader.last_offset()
            assert settle_at(1) == 1
            end(reader)
            del reader
            gc.collect()
        assert settle_at(0) == 0


def count_others(connection):
    """Count the other connections of clients; the server's own workers, such as autovacuum, come and go."""
    return connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    ).fetchone()[0]


def test_plans_from_when_the_tables_were_small_never_read_them_whole(postgresql):
    store = open_postgresql(postgresql.create_database())
    with closing(store.open_writer()) as writer, closing(store.open_reader()) as reader:
        for n in range(20):  # the server keeps a plan after ten executions
            writer.append([make_event(100 * n + i) for i in range(100)]).result()
            writer.append_slates([make_slate(100 * n + i) for i in range(100)]).result()
            writer.append_changes([CatalogChange("item", f"i{n}", "put", {}, 1)]).result()
            reader.scan(100 * n, 10)
            reader.read_tails(["u1", "u2"], [0, 0])
            reader.read_slates(100 * n, 10)
            reader.read_slates_of_users(["u1", "u2"], [0, 0], [10, 10])
            reader.count_slates(["u1"], "home", 0, 10)
            reader.read_blocks(["u1"])
            reader.read_changes(n, 10)
            reader.read_changes_of("item", ["i1"])
    with psycopg.connect(store.address, autocommit=True) as connection:
        while count_others(connection):  # their counts are in when they have ended
            time.sleep(0.05)
        read = connection.execute("SELECT relname, seq_tup_read FROM pg_stat_user_tables").fetchall()
        assert len(read) > 5 and {table: rows for table, rows in read if rows} == {}
