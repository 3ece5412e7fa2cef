"""Known blocks follow the store, keep newer ones over older ones, and forget erased users."""

import pytest

from handsell.events.known_blocks import KnownBlocks
from handsell.events.store.interface import Blocks, EventStoreError


def find(known, user_id):
    found = known.find(user_id)
    return None if found is None else (found.creators, found.tags)


def test_known_blocks_follow_those_of_other_processes(writer, reader, monkeypatch):
    monkeypatch.setattr("handsell.events.known_blocks.AT_ONCE", 2)
    known = KnownBlocks(reader)
    assert not known.is_complete
    for user in ("u1", "u2", "u3", "u4", "u5"):
        writer.put_blocks(user, [f"c of {user}"], []).result()
    known.read()
    assert known.is_complete and find(known, "u5") == (("c of u5",), ()) and find(known, "u6") is None
    writer.put_blocks("u1", [], ["t"]).result()
    writer.put_blocks("u2", [], []).result()
    writer.merge_identity("u3", "u4", 5).result()
    assert find(known, "u1") == (("c of u1",), ())
    known.read()
    assert find(known, "u1") == ((), ("t",)) and find(known, "u2") == ((), ())
    assert find(known, "u4") == (("c of u4", "c of u3"), ())


def test_blocks_of_this_process_hold_at_once_and_are_not_replaced_by_older_ones(writer, reader):
    known = KnownBlocks(reader)
    first, second = (writer.put_blocks("u1", [creator], []).result().offsets[0] for creator in "ab")
    assert first < second
    known.put(Blocks("u1", ("b",), (), second))
    assert find(known, "u1") == (("b",), ())
    known.put(Blocks("u1", ("a",), (), first))  # a page that was read before
    assert find(known, "u1") == (("b",), ())
    known.read()
    assert find(known, "u1") == (("b",), ())


def test_erased_users_are_forgotten_unless_they_have_come_back(writer, reader, monkeypatch):
    monkeypatch.setattr("handsell.events.known_blocks.ERASURES_S", 0.0)
    known = KnownBlocks(reader)
    for user in ("u1", "u2", "u3"):
        writer.put_blocks(user, ["c"], []).result()
    known.read()
    writer.erase_user("u1", 5).result()
    writer.erase_user("u2", 6).result()
    writer.put_blocks("u2", ["d"], []).result()
    known.read()
    assert [find(known, user) for user in ("u1", "u2", "u3")] == [None, (("d",), ()), (("c",), ())]
    known.forget(["u3"])
    assert find(known, "u3") is None


def test_what_is_known_stays_while_the_store_is_away(writer, reader):
    writer.put_blocks("u1", ["c"], []).result()
    known = KnownBlocks(reader)
    known.read()

    def fail(*_):
        raise EventStoreError("away")

    reader.read_changed_blocks = fail
    with pytest.raises(EventStoreError):
        known.read()
    assert known.is_complete and find(known, "u1") == (("c",), ())
