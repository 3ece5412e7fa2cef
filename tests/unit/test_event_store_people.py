"""Merged visitors, erased people and trimmed rows of the event store, on both engines."""

import pytest

from event_stores import make_event, make_slate
from handsell.events.merged_visitors import MergedVisitors
from handsell.events.store.interface import CatalogChange, Identity, IdentityConflict
from handsell.events.store.removal import TRIMMED_ROWS
from handsell.events.store.rows import hash_person


def test_a_merged_visitors_history_is_the_users_with_new_offsets(writer, reader):
    untimed = make_event(3, user="anon:v", sent_time=None)
    writer.append([make_event(1), make_event(2, user="anon:v", value=2.5), untimed, make_event(4, user="u2")]).result()
    writer.append_slates([make_slate(1, user="anon:v"), make_slate(2)]).result()
    writer.put_blocks("u1", ["c1"], ["t"]).result()
    writer.put_blocks("anon:v", ["c2", "c1"], []).result()
    done = writer.merge_identity("anon:v", "u1", 77).result()
    assert (done.accepted, done.duplicates, done.offsets) == (2, 0, (5, 6))
    assert reader.read_tail("anon:v")["offset"] == [] and reader.read_user_slates("anon:v", 0, 9_999) == []
    tail = reader.read_tail("u1")
    assert tail["offset"] == [1, 5, 6] and tail["event_id"] == ["e1", "e2", "e3"] and tail["value"][1] == 2.5
    assert len(reader.read_user_slates("u1", 0, 9_999)) == 2
    assert reader.read_blocks(["u1", "anon:v"]) == {"u1": (["c1", "c2"], ["t"])}
    assert reader.read_identities() == [Identity("anon:v", "u1", 77, 1, "anon:v")]
    # what is sent again, by either id, and with another time of arrival, is a duplicate
    again = [make_event(2, user="anon:v"), make_event(2), {**untimed, "time": 9_999}, {**untimed, "user_id": "u1"}]
    assert writer.append(again).result().duplicates == 4


def test_arms_of_a_merged_person_are_those_of_the_first_slate(writer, reader):
    """The unit of a merge: the id with the earliest slate, which later merges do not change."""
    slates = {"before": 1, "anon:after": 2, "anon:first": 3, "new": 4, "anon:second": 5}
    writer.append_slates([make_slate(n, user=user) for user, n in slates.items()]).result()
    merges = [
        ("anon:after", "before", "before"),  # an account that had been used keeps its arms
        ("anon:first", "new", "anon:first"),  # an account that began as a visitor keeps the visitor's
        ("anon:second", "before", "before"),
        ("anon:nothing", "nobody", "anon:nothing"),
        ("anon:first", "new", "anon:first"),  # again
    ]
    for n, (visitor, user, unit) in enumerate(merges):
        assert writer.merge_identity(visitor, user, 70 + n).result().unit == unit
    writer.merge_identity("new", "newest", 80).result()
    found = MergedVisitors.read(reader)
    assert [found.find_unit(user) for user in ("anon:after", "before", "anon:second")] == ["before"] * 3
    assert [found.find_unit(user) for user in ("anon:first", "new", "newest")] == ["anon:first"] * 3
    assert found.find_first_visitor("before") == "anon:after" and found.find_unit("else") == "else"
    old = MergedVisitors()
    old.add(Identity("anon:v", "u", 1))  # of an earlier version
    assert old.find_unit("u") == "anon:v"


def test_events_of_a_visitor_whose_clock_is_ahead_stay_apart_and_known(writer, reader):
    ahead = [make_event(n, user="anon:v", event_id=None, item_id="i", time=10, sent_time=50 + n) for n in range(3)]
    writer.append(ahead).result()
    writer.trim("events", 1).result()
    assert writer.merge_identity("anon:v", "u1", 77).result().accepted == 2
    assert len(reader.read_tail("u1")["offset"]) == 2
    assert writer.append(ahead).result().duplicates == 3  # sent again, by either id
    assert writer.append([one | {"user_id": "u1"} for one in ahead[1:]]).result().duplicates == 2
    writer.merge_identity("u1", "u2", 78).result()
    assert writer.append([one | {"user_id": "u1"} for one in ahead[1:]]).result().duplicates == 2
    assert writer.append([one | {"user_id": "u2"} for one in ahead[1:]]).result().duplicates == 2


def test_what_a_merged_visitor_does_later_is_the_users(writer, reader):
    writer.merge_identity("anon:v", "u1", 1).result()
    writer.append([make_event(1, user="anon:v")]).result()
    writer.append_slates([make_slate(1, user="anon:v")]).result()
    writer.put_blocks("anon:v", ["c"], []).result()
    assert reader.read_tail("u1")["event_id"] == ["e1"] and len(reader.read_user_slates("u1", 0, 9_999)) == 1
    assert reader.read_blocks(["u1"]) == {"u1": (["c"], [])} and reader.read_tail("anon:v")["offset"] == []


def test_an_event_that_visitor_and_user_both_had_counts_once(writer, reader):
    writer.append([make_event(1), make_event(1, user="anon:v"), make_event(2, user="anon:v")]).result()
    done = writer.merge_identity("anon:v", "u1", 1).result()
    assert (done.accepted, done.duplicates) == (1, 1)
    assert reader.read_tail("u1")["event_id"] == ["e1", "e2"]
    again = writer.merge_identity("anon:v", "u1", 2).result()
    assert (again.accepted, again.duplicates) == (0, 0) and len(reader.read_identities()) == 1


def test_a_trimmed_event_of_a_visitor_stays_a_duplicate_after_the_merge(writer):
    writer.append([make_event(1, user="anon:v")]).result()
    writer.trim("events", 1).result()
    writer.merge_identity("anon:v", "u1", 1).result()
    assert writer.append([make_event(1, user="anon:v")]).result().duplicates == 1


def test_merges_that_contradict_earlier_ones_are_refused_and_change_nothing(writer, reader):
    writer.merge_identity("v", "u1", 1).result()
    for visitor, user, words in (
        ("v", "u2", "'v' belongs to user 'u1'"), ("w", "v", "merge 'w' into that user"), ("u1", "u1", "name two ids"),
    ):  # fmt: skip
        with pytest.raises(IdentityConflict, match=words):
            writer.merge_identity(visitor, user, 2).result()
    with pytest.raises(IdentityConflict, match="erase that user"):
        writer.erase_user("v", 2).result()
    assert reader.read_identities() == [Identity("v", "u1", 1, 1, "v")] and reader.read_erasures() == []
    writer.merge_identity("u1", "u2", 3).result()  # with the visitors of u1; followers read both again
    assert reader.read_identities(1) == [Identity("u1", "u2", 3, 2, "v"), Identity("v", "u2", 3, 3, "v")]


def test_an_erased_user_leaves_nothing_but_the_record(writer, reader):
    writer.append([make_event(n, user=user) for n, user in enumerate(("u1", "anon:v", "u2"))]).result()
    writer.trim("events", 1).result()  # its key stays
    writer.append([make_event(3)]).result()
    writer.append_slates([make_slate(1), make_slate(2, user="anon:v"), make_slate(3, user="u2")]).result()
    writer.put_blocks("u1", ["c"], []).result()
    changes = [CatalogChange("user", "u1", "put", {}, 5), CatalogChange("item", "u1", "put", {}, 5)]
    writer.append_changes(changes).result()
    writer.merge_identity("anon:v", "u1", 6).result()
    done = writer.erase_user("u1", 9).result()
    assert done.accepted == 2 + 2 + 1 + 1 + 1 + 1  # events, slates, blocks, identities, changes, keys
    assert reader.scan()["user_id"] == ["u2"] and [slate[2] for slate in reader.read_slates()] == ["u2"]
    assert reader.read_blocks(["u1"]) == {} and reader.read_identities() == []
    assert [c.kind for c in reader.read_changes()] == ["item"] and reader.measure()["trimmed_keys"] == 0
    assert reader.count_lost_impressions() == {"g1": 0}
    assert {(e.person, e.user_id, e.time) for e in reader.read_erasures()} == {
        (hash_person("u1"), "u1", 9), (hash_person("anon:v"), "anon:v", 9),
    }  # fmt: skip
    assert writer.finish_erasure(hash_person("u1")).result().accepted == 1
    assert {e.user_id for e in reader.read_erasures()} == {None, "anon:v"}
    # a new history begins
    assert writer.append([make_event(0), make_event(3), make_event(1, user="anon:v")]).result().accepted == 3
    assert reader.read_tail("anon:v")["event_id"] == ["e1"]
    writer.erase_user("u1", 12).result()
    assert (hash_person("u1"), "u1", 12) in {(e.person, e.user_id, e.time) for e in reader.read_erasures()}


def test_keys_of_trimmed_events_stay_against_duplicates_until_they_are_trimmed(writer, reader):
    many = TRIMMED_ROWS + 10
    writer.append([make_event(n) for n in range(many)]).result()
    assert writer.trim("events", many - 5).result().accepted == many - 5  # in two parts
    assert reader.scan()["offset"] == list(range(many - 4, many + 1)) and reader.last_offset() == many
    assert writer.append([make_event(n) for n in range(many)]).result().duplicates == many
    assert writer.trim("events", many - 5).result().accepted == 0
    assert reader.measure()["trimmed_keys"] == many - 5
    assert writer.trim("trimmed_keys", 1).result().accepted == 1
    assert writer.append([make_event(0), make_event(1)]).result().offsets == (many + 1, -1)


def test_trimmed_slates_are_not_lost(writer, reader):
    writer.append_slates([make_slate(n) for n in (1, 2, 4)] + [make_slate(7, gateway="g2", sequence=1)]).result()
    assert reader.count_lost_impressions() == {"g1": 1, "g2": 0}
    assert writer.trim("slates", 3).result().accepted == 3
    assert reader.count_lost_impressions() == {"g1": 1, "g2": 0} and reader.find_slate_offset(0) == 3
    writer.append_slates([make_slate(6)]).result()
    assert reader.count_lost_impressions()["g1"] == 2
    writer.trim("slates", 99).result()
    assert reader.count_lost_impressions() == {"g1": 2, "g2": 0} and reader.find_slate_offset(0) == 5
    assert writer.append_changes([CatalogChange("item", "a", "put", {}, 5)] * 3).result().offsets == (1, 2, 3)
    assert writer.trim("catalog_changes", 2).result().accepted == 2
    assert [c.offset for c in reader.read_changes()] == [3] and reader.last_change_offset() == 3
