"""Samples of users for benchmarks: the same users at every size, and all rows of each."""

import json

import pytest
from benchmarks.quality.user_samples import (
    ATTRIBUTES,
    SEQUENCES,
    is_drawn,
    sample_sequences,
    sample_table,
    shrink_world,
)

from handsell.config import Config
from handsell.core.errors import DataError

USERS = [f"u{n}" for n in range(2_000)]


def test_about_that_share_of_users_is_drawn_and_a_larger_share_contains_it():
    few, more = ({user for user in USERS if is_drawn(user, share)} for share in (0.2, 0.5))
    assert 0.17 < len(few) / len(USERS) < 0.23
    assert few < more
    assert all(is_drawn(user, 1) for user in USERS)


def test_a_sampled_table_has_all_rows_of_the_drawn_users(tmp_path):
    path = tmp_path / "train.csv"
    rows = [f"{user},i{n}\n" for user in USERS[:100] for n in range(3)]
    path.write_text("".join(["user_id,item_id\n", *rows]))
    sample_table(path, 0.5)
    assert path.read_text() == "".join(["user_id,item_id\n", *(r for r in rows if is_drawn(r.split(",")[0], 0.5))])


def test_sampled_sequences_keep_the_attributes_of_all_items(tmp_path):
    source = tmp_path / "all"
    source.mkdir()
    (source / SEQUENCES).write_text("".join(f"{n} 7 8 9\n" for n in range(100)))
    (source / ATTRIBUTES).write_text(json.dumps({"7": [1], "10": [2]}))
    folder = sample_sequences(source, tmp_path / "some", 0.5)
    kept = [line.split()[0] for line in (folder / SEQUENCES).read_text().splitlines()]
    assert kept == [str(n) for n in range(100) if is_drawn(str(n), 0.5)]
    assert (folder / ATTRIBUTES).read_text() == (source / ATTRIBUTES).read_text()


def test_missing_sequences_are_refused(tmp_path):
    with pytest.raises(DataError, match=SEQUENCES):
        sample_sequences(tmp_path, tmp_path / "some", 0.5)


def test_a_smaller_world_has_that_share_of_the_users():
    world = Config(name="world").data.world
    assert shrink_world(Config(name="world"), 0.25).data.world.users == round(0.25 * world.users)
