"""Kernels read encoded rows as the code of decoded rows does, whatever is in them."""

import numpy as np
import pyarrow as pa
import pytest

from feature_world import START, write_tiny_config
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import Ragged
from handsell.core.kernels import compiled
from handsell.core.units import DAY_US
from handsell.events.fold import fold
from handsell.events.states import Affinities, Events, FoldRules, ItemAttributes
from handsell.features import rows as feature_rows
from handsell.features import user as user_features
from handsell.features.row_columns import change_attributes, read_floats
from handsell.features.rows import LISTS, Vocabularies, build_user_rows, rank_affinities, read_states
from handsell.features.storage.encoded_rows import EncodedRows
from handsell.features.storage.value_encoding import FIELDS, Value, decode_column, encode_column
from handsell.testing.small_catalog import draw_snapshot
from kernel_results import check_equal
from server_programs import report_missing

USERS = 6


@pytest.fixture(autouse=True)
def require_kernels_of_rows():
    if compiled is None:
        report_missing("the kernels were not built: no C compiler at installation")


@pytest.fixture
def case(rng, tmp_path):
    """The columns of rows by name, and the names of all ids; the last user has no events."""
    config = write_tiny_config(tmp_path)
    catalog = draw_snapshot(rng, items=40, creators=6, tags=5)
    rules = FoldRules.of(config)
    kind = rng.integers(0, 3, 150)
    time = np.sort(rng.choice(40 * DAY_US, 150, replace=False)) + START
    log = Events.of(rng.integers(0, USERS - 1, 150), rng.integers(0, 40, 150), kind, time, np.array([0, 1, -0.5])[kind])
    states = fold(rules.empty_states(USERS), log, ItemAttributes(catalog.creator, catalog.item_tags), rules)
    names = Vocabularies(Vocabulary.of(f"u{i}" for i in range(USERS)), catalog.items, catalog.creators, catalog.tags)
    tables = build_user_rows(states, np.arange(USERS), names, config)
    return config, names, {name: t[name].combine_chunks() for t in tables.values() for name in t.column_names[1:-2]}


def encode_rows(columns) -> EncodedRows:
    """Rows as the online store has them."""
    fields = {
        name: Value.FromString(encode_column(column.drop_null())[0]).WhichOneof("val")
        for name, column in columns.items()
    }
    return EncodedRows({name: encode_column(column) for name, column in columns.items()}, fields, decode_column)


def take_row(rows: EncodedRows, row: int) -> EncodedRows:
    return rows.take([row])


def cut_items(cells):
    """Item ids of which the catalog lacks one."""
    return [["gone", *cell[1:]] if cell else cell for cell in cells]


def swap_ends(cells):
    return [cell if not cell else [cell[-1], *cell[1:-1], cell[0]][: len(cell)] for cell in cells]


CHANGES = {
    "as written": {},
    "an unknown item": {"history_item_ids": cut_items, "seen_item_ids": cut_items},
    "an unknown creator": {"top_creators": cut_items},
    "a history out of order": {"history_times_us": swap_ends},
    "seen items out of order": {"seen_item_ids": swap_ends},
    "a creator twice": {"top_creators": lambda cells: [[*c[:-1], c[0]] if c else c for c in cells]},
    "an unknown type": {"history_types": lambda cells: [["other", *c[1:]] if c else c for c in cells]},
    "no lists but one": {name: lambda cells: [*[None] * (len(cells) - 2), *cells[-2:]] for name in LISTS},
    "negative times": {"history_times_us": lambda cells: [[at - 2**60 for at in c] for c in cells]},
}


@pytest.mark.parametrize("caps", [{}, {"history_length": 2, "seen_cap": 3, "affinity_size": 2}], ids=["all", "few"])
@pytest.mark.parametrize("what", CHANGES)
def test_bytes_give_the_states_that_values_give(case, what, caps):
    config, names, columns = case
    config = config.model_copy(update={"features": config.features.model_copy(update=caps)})
    changed = {
        name: pa.array(change(columns[name].to_pylist()), columns[name].type) for name, change in CHANGES[what].items()
    }
    rows = encode_rows({**columns, **changed})
    for part in (rows, *(take_row(rows, row) for row in range(USERS)), rows.take([3, None, 0])):
        check_same(read_states(part, names, config), read_states(dict(part), names, config))


def test_no_kernel_leaves_rows_as_written_to_values(case, monkeypatch):
    config, names, columns = case
    rows = encode_rows(columns)
    monkeypatch.setattr(rows, "_decode", lambda cells, field: pytest.fail("decoded"))
    read_states(rows, names, config)


@pytest.mark.parametrize("name", ["history_times_us", "history_types", "seen_times_us", "top_tag_weights"])
def test_lists_of_different_length_are_an_error(case, name):
    config, names, columns = case
    longer = [[*cell, cell[0]] if cell else cell for cell in columns[name].to_pylist()]
    with pytest.raises((IndexError, ValueError)):
        read_states(encode_rows({**columns, name: pa.array(longer, columns[name].type)}), names, config)


@pytest.mark.parametrize("name", ["history_item_ids", "seen_times_us", "top_tag_weights", "state_time_us"])
def test_damaged_bytes_are_an_error_as_before(case, name):
    config, names, columns = case
    for cut in (slice(0, -1), slice(1, None)):
        rows = encode_rows(columns)
        rows._cells[name] = [cell and cell[cut] for cell in rows._cells[name]]
        with pytest.raises(Exception):  # noqa: B017 - protobuf has errors of its own for each engine
            dict(rows)
            pytest.fail("not damaged")
        with pytest.raises(Exception):  # noqa: B017
            read_states(rows, names, config)


def test_lists_that_protobuf_allows_in_another_form(case):
    """Numbers one by one, as writers without packed fields have them."""
    config, names, columns = case
    rows, tag = encode_rows(columns), bytes([FIELDS["int64_list_val"].number << 3 | 2])
    for at, times in enumerate(columns["seen_times_us"].to_pylist()):
        one = b"".join(b"\x08" + Value(int64_val=time).SerializeToString()[1:] for time in times)
        size = Value(int64_val=len(one)).SerializeToString()[1:]
        rows._cells["seen_times_us"][at] = tag + size + one
    assert rows["seen_times_us"] == columns["seen_times_us"].to_pylist()
    check_same(read_states(rows, names, config), read_states(encode_rows(columns), names, config))


def test_numbers(rng):
    columns = {
        "whole": pa.array([0, -7, 2**62, None]), "double": pa.array([0.1, -np.inf, None, 1e300]),
        "single": pa.array([0.1, None, 3.0, -0.0], pa.float32()),
    }  # fmt: skip
    rows = encode_rows(columns)
    expected = np.array([column.to_numpy(zero_copy_only=False) for column in columns.values()], float).T
    np.testing.assert_array_equal(read_floats(rows, tuple(columns)), expected)
    np.testing.assert_array_equal(rows.read_floats(tuple(columns)), expected)
    assert encode_rows({"text": pa.array(["a"])}).read_floats(["text"]) is None
    with pytest.raises(Exception, match="expected column other"):
        read_floats(rows, ("whole", "other"))


def test_changed_attributes_are_read_instead_of_bytes():
    rows = encode_rows({"age": pa.array([30, 40, None]), "name": pa.array(["a", "b", "c"])})
    changed = change_attributes(rows, ["u", "v", "w"], {"v": {"age": 41, "unknown": 1}})
    assert dict(changed) == {"age": [30, 41, None], "name": ["a", "b", "c"]}
    np.testing.assert_array_equal(read_floats(changed, ("age",)), [[30], [41], [np.nan]])
    assert dict(changed.take([1, None])) == {"age": [41, None], "name": ["b", None]}
    assert changed.list_bytes(1) != rows.list_bytes(1)
    assert changed.list_bytes(0)[1] == rows.list_bytes(0)[1]


def test_ranked_affinities(rng, monkeypatch):
    offsets = np.array([0, 4, 4, 9])
    key = np.concatenate([np.sort(rng.choice(50, n, replace=False)) for n in (4, 5)]).astype(np.int32)
    weight = np.array([1.5, -2.0, 1.5, 0.25, 0.0, -0.0, 7.0, 0.0, 3.0])
    for values in (weight, np.where(weight == 7, np.nan, weight)):
        affinities = Affinities(Ragged(key, offsets), Ragged(values, offsets))
        check_equal(monkeypatch, feature_rows, lambda one=affinities: rank_affinities(one, 6))


@pytest.mark.parametrize("what", ["as written", "no lists but one"])
def test_features_of_users(case, monkeypatch, what):
    config, names, columns = case
    changed = {
        name: pa.array(change(columns[name].to_pylist()), columns[name].type) for name, change in CHANGES[what].items()
    }
    states = read_states(encode_rows({**columns, **changed}), names, config)
    for days in (0, 39, 80, 200):
        time = np.full(USERS, START + days * DAY_US + 12_345)
        check_equal(
            monkeypatch, user_features, lambda at=time: (user_features.compute_user_features(states, at, None),)
        )


def check_same(found, expected):
    """Check that two states have the same values of the same types."""
    if isinstance(found, np.ndarray):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
        return
    assert type(found) is type(expected)
    for name in found.__slots__:
        check_same(getattr(found, name), getattr(expected, name))
