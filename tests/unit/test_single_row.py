"""One row of the online store is read as any number of rows are, whatever is in it."""

import numpy as np
import pytest

from feature_world import START, write_tiny_config
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.units import DAY_US
from handsell.events.fold import fold
from handsell.events.states import Events, FoldRules, ItemAttributes
from handsell.features import rows as feature_rows
from handsell.features.rows import LISTS, Vocabularies, build_user_rows, read_states
from handsell.testing.small_catalog import draw_snapshot

USERS = 6


@pytest.fixture
def case(rng, tmp_path):
    """Rows as the online store returns them, and the names of all ids."""
    config = write_tiny_config(tmp_path)
    catalog = draw_snapshot(rng, items=40, creators=6, tags=5)
    rules = FoldRules.of(config)
    kind = rng.integers(0, 3, 150)
    time = np.sort(rng.choice(40 * DAY_US, 150, replace=False)) + START
    log = Events.of(rng.integers(0, USERS - 1, 150), rng.integers(0, 40, 150), kind, time, np.array([0, 1, -0.5])[kind])
    states = fold(rules.empty_states(USERS), log, ItemAttributes(catalog.creator, catalog.item_tags), rules)
    names = Vocabularies(Vocabulary.of(f"u{i}" for i in range(USERS)), catalog.items, catalog.creators, catalog.tags)
    tables = build_user_rows(states, np.arange(USERS), names, config)
    return config, names, {name: t[name].to_pylist() for t in tables.values() for name in t.column_names}


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
    "no lists": {name: lambda cells: [None] * len(cells) for name in LISTS},
    "missing lists": {name: lambda cells: [float("nan")] * len(cells) for name in LISTS},
}


@pytest.mark.parametrize("caps", [{}, {"history_length": 2, "seen_cap": 3, "affinity_size": 2}], ids=["all", "few"])
@pytest.mark.parametrize("what", CHANGES)
def test_one_row_gives_the_state_that_rows_give(case, monkeypatch, what, caps):
    config, names, rows = case
    config = config.model_copy(update={"features": config.features.model_copy(update=caps)})
    rows = rows | {name: change(rows[name]) for name, change in CHANGES[what].items()}
    for row in range(USERS):
        one = {name: cells[row : row + 1] for name, cells in rows.items()}
        found = read_states(one, names, config)
        with monkeypatch.context() as patch:
            patch.setattr(feature_rows, "_read_one", lambda *_: (None, None, None, None))
            expected = read_states(one, names, config)
        check_same(found, expected)


@pytest.mark.parametrize("name", ["history_times_us", "seen_times_us", "top_tag_weights"])
def test_lists_of_different_length_are_an_error_as_in_many_rows(case, name):
    config, names, rows = case
    one = {column: cells[:1] for column, cells in rows.items()}
    one[name] = [[*one[name][0], 1]]
    with pytest.raises((IndexError, ValueError)):
        read_states(one, names, config)


def check_same(found, expected):
    """Check that two states have the same values of the same types."""
    if isinstance(found, np.ndarray):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
        return
    assert type(found) is type(expected)
    for name in found.__slots__:
        check_same(getattr(found, name), getattr(expected, name))
