"""Random operations give the same results on both engines and on a plain model of Python lists."""

import itertools
from contextlib import ExitStack, closing

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from event_stores import make_event, make_slate, open_postgresql, open_sqlite
from handsell.events.store.interface import CatalogChange, EventStoreError

USERS = ["u1", "u2", "v1", "v2"]
users = st.sampled_from(USERS)
numbers = st.integers(0, 6)
events = st.builds(
    lambda id, user, sent: make_event(0, user=user, time=5, event_id=id, sent_time=sent),
    st.sampled_from([None, "e", "f"]), users, st.sampled_from([5, 6, 7, None]),
)  # fmt: skip
operations = st.one_of(
    st.tuples(st.just("append"), st.lists(events, max_size=5)),
    st.tuples(st.just("append_slates"), st.lists(st.builds(make_slate, numbers, users | st.none()), max_size=3)),
    st.tuples(
        st.just("append_changes"),
        st.lists(
            st.builds(CatalogChange, st.just("user"), users, st.just("put"), st.just({"a": 1}), numbers), max_size=2
        ),
    ),
    st.tuples(st.just("put_blocks"), users, st.lists(st.sampled_from("ab"), max_size=2), st.just(["t"])),
    st.tuples(st.just("merge_identity"), users, users, numbers),
    st.tuples(st.just("erase_user"), users, numbers),
    st.tuples(st.just("save_position"), st.sampled_from(["p", "q"]), numbers),
    st.tuples(st.just("trim"), st.sampled_from(["events", "slates", "catalog_changes", "trimmed_keys"]), numbers),
)
counter = itertools.count()


def run(writer, operation, *arguments):
    try:
        return getattr(writer, operation)(*arguments).result()
    except EventStoreError as error:
        return type(error), str(error)


def read(reader):
    return (
        reader.scan(), reader.read_tails(USERS, [0, 1, 2, 0], 3), reader.last_offset(), reader.read_slates(),
        reader.read_slates_of_users(USERS, [0] * 4, [9_999] * 4, 2), reader.count_lost_impressions(),
        reader.count_slates(USERS, "home", 0, 9_999), reader.read_blocks(USERS), reader.read_changes(),
        reader.read_changes_of("user", USERS[:2]), reader.last_change_offset(), reader.read_identities(),
        reader.read_erasures(), reader.read_position("p"), reader.read_position("q"), reader.find_slate_offset(1_003),
        {name: count for name, count in reader.measure().items() if name != "bytes"}, reader.read_impressions(),
        reader.read_item_impressions("a"), reader.count_item_events("a"),
    )  # fmt: skip


def check_invariants(reader, before):
    """What holds whatever happened; `before` is the last offset of the former state."""
    rows = reader.scan()
    assert rows["offset"] == sorted(set(rows["offset"])) and len(set(rows["key"])) == len(rows["key"])
    assert reader.last_offset() >= max([before, *rows["offset"]])
    merged = {one.visitor_id for one in reader.read_identities()}
    assert not merged & {*rows["user_id"], *(user for _, _, user, _, _ in reader.read_slates())}


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(operations, max_size=15))
def test_both_engines_give_the_same_answers(steps, tmp_path, postgresql):
    stores = open_sqlite(tmp_path / str(next(counter)) / "log.db"), open_postgresql(postgresql.create_database())
    with ExitStack() as stack:
        writers = [stack.enter_context(closing(store.open_writer())) for store in stores]
        readers = [stack.enter_context(closing(store.open_reader())) for store in stores]
        for operation, *arguments in steps:
            before = readers[0].last_offset()
            one, other = (run(writer, operation, *arguments) for writer in writers)
            assert one == other, (operation, arguments)
            check_invariants(readers[0], before)
        one, other = (read(reader) for reader in readers)
        assert one == other
