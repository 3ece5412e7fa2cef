"""Events read from parts are sorted by user and time, however they lie in the files."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from handsell.data.interactions import COLUMNS, NUMBERED, Interactions
from handsell.jobs.train import retrievers

USERS, ITEMS = 40, 30


def draw_events(rng, count=500) -> pa.Table:
    """Events in no order; times of a user are distinct."""
    return pa.table(
        {
            "user": rng.integers(0, USERS, count),
            "item": rng.integers(0, ITEMS, count),
            "type": rng.integers(0, 3, count),
            "time": rng.permutation(count) + 10**15,
            "weight": rng.random(count),
        },
        schema=pa.schema([NUMBERED.field(name) for name in COLUMNS]),
    )


def write_parts(folder, table, part_of):
    paths = []
    for part in np.unique(part_of):
        paths.append(folder / f"part-{part}.parquet")
        pq.write_table(table.filter(pa.array(part_of == part)), paths[-1], row_group_size=37)
    return paths


@pytest.mark.parametrize("layout", ["by user", "mixed", "one"])
def test_parts_give_the_events_of_one_table(rng, tmp_path, layout):
    table = draw_events(rng)
    user = table["user"].to_numpy()
    part_of = {"by user": user % 7, "mixed": rng.integers(0, 4, len(user)), "one": np.zeros(len(user), int)}[layout]
    found = Interactions.read(write_parts(tmp_path, table, part_of), USERS, ITEMS)
    expected = Interactions.from_table(table, USERS, ITEMS)
    assert (np.diff(expected.user) >= 0).all() and (found.n_users, found.n_items) == (USERS, ITEMS)
    for name in COLUMNS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name


def test_no_parts_and_empty_parts_give_no_events(tmp_path, rng):
    assert len(Interactions.read([], USERS, ITEMS)) == 0
    pq.write_table(draw_events(rng, 0), tmp_path / "part-0.parquet")
    empty = Interactions.read([tmp_path / "part-0.parquet"], USERS, ITEMS)
    assert len(empty) == 0 and empty.weight.dtype == np.float32 and empty.matrix().shape == (USERS, ITEMS)


def test_likes_are_counted_part_by_part(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(retrievers.CatalogSizes, "load", lambda layout: retrievers.CatalogSizes(USERS, ITEMS))
    table = draw_events(rng)
    table = table.set_column(4, NUMBERED.field("weight"), pa.array(rng.choice([-1, 0, 2], len(table)), pa.float32()))
    write_parts(tmp_path, table, table["user"].to_numpy() % 3)
    found = retrievers.count_positives(SimpleNamespace(state=tmp_path), tmp_path)
    liked = Interactions.from_table(table, USERS, ITEMS).positives
    assert np.array_equal(found, np.bincount(liked.item, minlength=ITEMS)) and found.sum() > 100
