"""The contract of the event store (events/store/interface.py), on both engines."""

import json
import threading

import pytest

from event_stores import make_event, make_slate
from handsell.core.units import DAY_US
from handsell.events.store.interface import Blocks, CatalogChange, EventStoreError


def test_a_second_event_with_the_same_key_changes_nothing(writer, reader):
    first = writer.append([make_event(1, value=3.0), make_event(2)]).result()
    again = writer.append([make_event(2, value=9.0), make_event(3), make_event(3)]).result()
    assert (first.accepted, first.duplicates, first.offsets) == (2, 0, (1, 2))
    assert (again.accepted, again.duplicates) == (1, 2)
    assert [o > 0 for o in again.offsets] == [False, True, False]
    rows = reader.scan()
    assert rows["event_id"] == ["e1", "e2", "e3"] and rows["value"] == [3.0, None, None]
    assert rows["offset"] == [1, 2, again.offsets[1]] and len(set(rows["key"])) == 3


def test_lines_of_an_order_and_events_without_an_id_are_told_apart_by_their_key(writer):
    line = {"event_id": "order 7", "user_id": "u1", "item_id": "a", "type": "buy", "time": 5}
    bare = {**line, "event_id": None}
    arrived = {**line, "sent_time": None}  # without a timestamp: `time` is that of the arrival
    done = writer.append([
        line, {**line, "item_id": "b"}, {**line, "type": "return"}, {**line, "user_id": "u2"}, {**line, "time": 6},
        line, bare, bare, {**bare, "time": 6}, arrived, {**arrived, "time": 9}, {**arrived, "item_id": "b"},
    ]).result()  # fmt: skip
    assert [offset > 0 for offset in done.offsets] == [
        True, True, True, True, True, False, True, False, True, True, False, True,
    ]  # fmt: skip


def test_every_column_of_an_event_is_read_as_it_was_written(writer, reader):
    event = make_event(
        1, user="ü 'x' \"y\" %s ? \\ 🎵", value=-0.1, surface="home", recommendation_id="r", position=3, propensity=0.25
    )
    bare = {"event_id": None, "user_id": event["user_id"], "item_id": "", "type": "t", "time": -(2**62)}
    writer.append([event, bare]).result()
    rows = reader.read_tail(event["user_id"])
    assert {name: rows[name][0] for name in event} == event
    assert {name: rows[name][1] for name in bare} == bare and rows["value"][1] is None and rows["position"][1] is None


def test_a_store_that_does_not_exist_yet_is_empty(reader):
    assert reader.scan()["event_id"] == [] and reader.read_tail("u")["key"] == []
    assert reader.read_tails([], [])["row"] == [] and reader.read_slates_of_users([], [], []) == []
    assert reader.read_tails(["u", "v"], [0, 9])["row"] == []
    assert reader.last_offset() == reader.last_change_offset() == reader.read_position("p") == 0
    assert reader.read_user_slates("u", 0, 9) == [] and reader.read_slates() == [] and reader.find_slate_offset(5) == 0
    assert reader.read_impressions()["item_id"] == [] and reader.count_lost_impressions() == {}
    assert reader.read_blocks(["u"]) == {} and reader.count_slates(["u"], "home", 0, 9) == {}
    assert reader.read_blocks([]) == {} and reader.count_slates([], "home", 0, 9) == {}
    assert reader.read_item_impressions("a")["item_id"] == reader.count_item_events("a") == []
    assert reader.read_changes() == reader.read_changes_of("item", ["a"]) == []
    assert reader.read_identities() == [] and reader.read_erasures() == []
    assert reader.measure()["events"] == 0


def test_readers_follow_the_writer(writer, reader):
    writer.append([make_event(1), make_event(2, user="u2"), make_event(3)]).result()
    assert reader.read_tail("u1", 0)["item_id"] == ["i1", "i3"]
    writer.append([make_event(4)]).result()
    assert reader.read_tail("u1", 3)["item_id"] == ["i4"]
    assert reader.read_tail("u1", 0, limit=2)["item_id"] == ["i3", "i4"]
    assert reader.scan(after_offset=1, limit=2)["event_id"] == ["e2", "e3"]
    assert reader.last_offset() == 4 and reader.read_tail("nobody")["time"] == []


def test_the_tails_of_many_users_are_those_of_each(writer, reader, rng):
    users = [f"u{n}" for n in range(600)]
    owner = rng.integers(0, 500, 3_000)
    writer.append([make_event(n, user=users[u]) for n, u in enumerate(owner.tolist())]).result()
    after = rng.integers(0, 3_000, len(users)).tolist()
    for limit in (3, 2_000):
        batch = reader.read_tails(users, after, limit)
        assert batch["row"] == sorted(batch["row"]) and len(batch["row"]) > 500
        for place in range(0, len(users), 37):
            own = reader.read_tail(users[place], after[place], limit)
            rows = [i for i, row in enumerate(batch["row"]) if row == place]
            assert {name: [batch[name][i] for i in rows] for name in own} == own


def test_the_slates_of_many_users_are_those_of_each(writer, reader, rng):
    slates = [
        make_slate(n, user=f"u{u}", time=int(t), surface=["home", "email"][n % 2])
        for n, (u, t) in enumerate(zip(rng.integers(0, 9, 400), rng.integers(0, 99, 400), strict=True))
    ]
    assert writer.append_slates([*slates, slates[0]]).result().duplicates == 1
    users = [f"u{n}" for n in range(11)] + ["u3"]  # the same user on two surfaces
    since, before = [10] * 11 + [50], [90] * 12
    for limit in (4, 500):
        batch = reader.read_slates_of_users(users, since, before, limit)
        assert batch == [
            reader.read_user_slates(user, s, b, limit) for user, s, b in zip(users, since, before, strict=True)
        ]
    wanted = [slate for slate in slates if slate["user_id"] == "u3" and 50 <= slate["time"] < 90]
    wanted.sort(key=lambda slate: (slate["time"], slate["sequence"]), reverse=True)
    assert batch[-1] == [(slate["time"], slate["surface"], ["a", "b"]) for slate in wanted]
    counts = {f"u{n}": sum(s["user_id"] == f"u{n}" and s["surface"] == "email" for s in slates) for n in range(11)}
    assert reader.count_slates(users, "email", 0, 99) == {user: n for user, n in counts.items() if n}


def test_impressions_are_read_item_by_item(writer, reader):
    writer.append_slates([make_slate(1), make_slate(2, user=None), make_slate(5)]).result()
    shown = reader.read_impressions()
    assert shown["recommendation_id"] == ["r1", "r1", "r2", "r2", "r5", "r5"]
    assert (
        shown["position"] == [1, 2] * 3 and shown["item_id"] == ["a", "b"] * 3 and shown["sources"][:2] == [["x"], []]
    )
    assert reader.read_slates(after_offset=1) == [
        (2, 1_002, None, "home", ["a", "b"]),
        (3, 1_005, "u1", "home", ["a", "b"]),
    ]
    assert [reader.find_slate_offset(time) for time in (0, 1_001, 1_002, 1_003, 9_999)] == [0, 0, 1, 2, 3]
    assert reader.count_lost_impressions() == {"g1": 2}


def test_blocks_changes_and_positions_are_kept(writer, reader):
    writer.put_blocks("u1", ["c1"], []).result()
    writer.put_blocks("u1", ["c2", "ü"], ["t"]).result()
    writer.put_blocks("u2", [], []).result()
    assert reader.read_blocks(["u1", "u2", "u3"]) == {"u1": (["c2", "ü"], ["t"]), "u2": ([], [])}
    second, third = Blocks("u1", ("c2", "ü"), ("t",), 2), Blocks("u2", (), (), 3)
    assert reader.read_changed_blocks() == [second, third] and reader.read_changed_blocks(2) == [third]
    assert reader.read_changed_blocks(0, 1) == [second] and reader.read_changed_blocks(3) == []
    changes = [
        CatalogChange("item", "a", "put", {"title": "ü\0", "tags": ["x"], "published_at": None, "price": 1.5}, 5),
        CatalogChange("user", "a", "patch", {"age": 3}, 6),
        CatalogChange("item", "a", "delete", {}, 7),
    ]
    assert writer.append_changes(changes).result().offsets == (1, 2, 3)
    found = reader.read_changes()
    assert [(c.kind, c.id, c.action, c.fields, c.time) for c in found] == [
        (c.kind, c.id, c.action, c.fields, c.time) for c in changes
    ]
    assert reader.read_changes(1, 1) == found[1:2] and reader.read_changes_of("item", ["a", "b"]) == found[::2]
    assert reader.last_change_offset() == 3
    writer.save_position("p", 7).result()
    writer.save_position("p", 3).result()
    assert reader.read_position("p") == 3


def test_concurrent_appends_share_commits_and_lose_nothing(event_store, reader):
    writer = event_store.open_writer()
    commits = []
    real = writer._commit
    writer._commit = lambda group: (commits.append(len(group)), real(group))
    futures = [writer.append([make_event(n)]) for n in range(500)]
    assert sum(f.result().accepted for f in futures) == 500
    writer.close()
    assert len(commits) < 500 and sum(commits) == 500
    assert reader.scan()["offset"] == list(range(1, 501))


def test_threads_may_share_a_reader(writer, reader):
    writer.append([make_event(n, user=f"u{n % 7}") for n in range(700)]).result()
    failed = []

    def read(user):
        for _ in range(50):
            if len(reader.read_tail(user)["offset"]) != 100:
                failed.append(user)

    threads = [threading.Thread(target=read, args=(f"u{n}",)) for n in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_call_that_cannot_be_stored_does_not_fail_its_neighbors(event_store, reader):
    writer = event_store.open_writer()
    gate = threading.Event()
    real = writer._commit
    writer._commit = lambda group: (gate.wait(), real(group))
    first = writer.append([make_event(0)])
    good, bad = writer.append([make_event(1)]), writer.append([make_event(2, user="\ud800")])
    other = writer.append_slates([make_slate(1)])
    gate.set()
    assert first.result().accepted == good.result().accepted == other.result().accepted == 1
    with pytest.raises(EventStoreError):
        bad.result()
    writer.close()
    assert reader.scan()["event_id"] == ["e0", "e1"]
    with pytest.raises(EventStoreError, match="closed"):
        writer.append([make_event(2)])


def test_offsets_are_never_given_twice(event_store, reader):
    for n in range(3):
        writer = event_store.open_writer()
        assert writer.append([make_event(n)]).result().offsets == (n + 1,)
        writer.trim("events", n + 1).result()
        writer.close()
    assert reader.last_offset() == 3 and reader.scan()["offset"] == []


def test_a_store_tells_its_size(writer, reader):
    before = reader.measure()
    writer.append([make_event(n, item_id="x" * 200) for n in range(2_000)]).result()
    writer.append_slates([make_slate(1)]).result()
    after = reader.measure()
    assert (after["events"], after["slates"], after["blocks"]) == (2_000, 1, 0)
    assert after["bytes"] > before["bytes"] + 400_000


@pytest.mark.parametrize("item_id", ["a", 'é "x" \\ %_?', "東京 🎵", "a,b", '"a"'])
def test_impressions_of_an_item_are_those_of_the_slates_that_show_it(writer, reader, item_id):
    def write(ids, is_ascii):
        n = len(ids)
        shown = {"item_id": ids, "score": [0.5] * n, "propensity": [1] * n, "sources": [["als"]] * n}
        return json.dumps(shown, ensure_ascii=is_ascii)

    others = ["aa", "A", "é", "als"]
    writer.append_slates([
        make_slate(1, items=write(["aa", item_id], True)), make_slate(2, items=write(others, False)),
        make_slate(3, surface="email", items=write([item_id, "b b"], False)),
        make_slate(4, items=write([*others, item_id], False)),
    ]).result()  # fmt: skip
    every = reader.read_item_impressions(item_id)
    assert every["recommendation_id"] == ["r1", "r3", "r4"] and every["position"] == [2, 1, 5]
    assert every["surface"] == ["home", "email", "home"] and every["sources"] == [["als"]] * 3
    assert reader.read_item_impressions(item_id, after_offset=1, limit=1)["recommendation_id"] == ["r3"]
    assert reader.read_item_impressions("unknown")["time"] == []


def test_events_of_an_item_are_counted_by_type_and_day(writer, reader):
    days = [0, 0, 1, 400]
    writer.append([make_event(n, item_id="x", time=day * DAY_US + 5) for n, day in enumerate(days)]).result()
    liked = {"item_id": "x", "type": "like"}
    writer.append([
        make_event(8, **liked), make_event(9, recommendation_id="r", **liked), make_event(10, item_id="y")
    ]).result()  # fmt: skip
    clicks = [("click", 0, 2, 0), ("click", 1, 1, 0), ("click", 400, 1, 0)]
    assert reader.count_item_events("x") == [*clicks, ("like", 0, 2, 1)]
    assert reader.count_item_events("x", after_offset=5) == [("like", 0, 1, 1)]
