"""Content vectors: similar for similar items, learned from the past only."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from handsell.core.batches import Ragged
from handsell.core.units import DAY_US
from handsell.retrieval.content_vectors import Content, fit_content_vectors
from handsell.testing.small_catalog import NOW, draw_snapshot

WORDS = ("river", "stone", "cloud", "ember", "meadow", "harbour", "lantern", "thunder")


@pytest.fixture
def shelf(rng):
    """200 items whose creators, words and numbers are as random as their tags."""
    base = draw_snapshot(rng)
    names = base.creators.ids(np.arange(len(base.creators)))
    creators = [[names[c]] if c >= 0 else None for c in base.creator]
    titles = [" ".join(rng.choice(WORDS, 2)) for _ in range(len(base))]
    metadata = base.metadata.append_column("creators", pa.array(creators, pa.list_(pa.string())))
    metadata = metadata.append_column("title", pa.array(titles))
    return dataclasses.replace(base, metadata=metadata.append_column("tempo", pa.array(rng.normal(size=len(base)))))


def cosine(content: Content, i, j):
    return float(content.vectors[i] @ content.vectors[j])


def test_vectors_have_unit_length_or_are_zero(shelf):
    content = fit_content_vectors(shelf, 32, before=NOW, columns=["tempo"])
    length = np.linalg.norm(content.vectors, axis=1)
    assert content.vectors.shape == (len(shelf), 32) and content.vectors.dtype == np.float32
    assert np.all((np.abs(length - 1) < 1e-5) | (length == 0))


def test_items_with_common_creators_or_tags_are_similar(shelf):
    content = fit_content_vectors(shelf, 64, before=NOW)
    similar = content.vectors @ content.vectors.T
    same_creator = (shelf.creator[:, None] == shelf.creator) & (shelf.creator >= 0)[:, None]
    shared_tags = (shelf.tag_matrix @ shelf.tag_matrix.T).toarray()
    other = ~np.eye(len(shelf), dtype=bool)
    assert similar[same_creator & other].mean() > similar[~same_creator & other].mean() + 0.2
    assert similar[(shared_tags > 0.9) & other].mean() > similar[(shared_tags == 0) & other].mean() + 0.2


def test_items_with_common_words_are_similar(shelf):
    bare = dataclasses.replace(
        shelf,
        creator=np.full(len(shelf), -1, np.int32),
        item_tags=Ragged.empty(len(shelf)),
        metadata=shelf.metadata.select(["item_id", "title"]),
    )
    titles = shelf.metadata["title"].to_pylist()
    content = fit_content_vectors(bare, 32, before=NOW)
    words = [set(t.split()) for t in titles]
    same = next((i, j) for i in range(50) for j in range(i + 1, 200) if words[i] == words[j])
    apart = next((i, j) for i in range(50) for j in range(i + 1, 200) if not words[i] & words[j])
    assert cosine(content, *same) > 0.9 > cosine(content, *apart) + 0.5


def test_a_small_towns_hotels_are_near_each_other_although_the_leading_directions_drop_it(rng):
    town = np.concatenate([np.repeat(np.arange(40), 60), np.repeat(np.arange(40, 340), 4)])  # large and small ones
    base = draw_snapshot(rng, len(town), tags=340)
    priced = base.metadata.append_column("price", pa.array(rng.normal(size=len(town))))
    hotels = dataclasses.replace(base, item_tags=Ragged.from_rows(town[:, None]), metadata=priced)
    vectors = fit_content_vectors(hotels, 32, before=NOW, columns=["price"]).vectors
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    assert (town[similar.argmax(axis=1)] == town)[town >= 40].mean() > 0.7


def test_later_items_do_not_change_the_vectors_of_earlier_ones(shelf):
    cut = NOW - 100 * DAY_US
    late = np.flatnonzero(shelf.published >= cut)
    assert len(late) > 10
    rows = [shelf.item_tags.row(i) for i in range(len(shelf))]
    for i in late:
        rows[i] = np.array([int(i) % 12], np.int32)
    titles = shelf.metadata["title"].to_pylist()
    for i in late:
        titles[i] = "scrambled"
    column = shelf.metadata.column_names.index("title")
    scrambled = dataclasses.replace(
        shelf, item_tags=Ragged.from_rows(rows), metadata=shelf.metadata.set_column(column, "title", pa.array(titles))
    )
    before, after = (fit_content_vectors(s, 32, before=cut, columns=["tempo"]) for s in (shelf, scrambled))
    early = np.setdiff1d(np.arange(len(shelf)), late)
    assert np.array_equal(before.vectors[early], after.vectors[early])
    assert not np.array_equal(before.vectors[late], after.vectors[late])


def test_items_without_content_have_zero_vectors(shelf):
    bare = dataclasses.replace(
        shelf,
        creator=np.full(len(shelf), -1, np.int32),
        item_tags=Ragged.empty(len(shelf)),
        metadata=shelf.metadata.select(["item_id"]),
    )
    assert not fit_content_vectors(bare, 16, before=NOW).vectors.any()


def test_save_and_load(shelf, tmp_path):
    content = fit_content_vectors(shelf, 16, before=NOW)
    content.save(tmp_path)
    assert np.array_equal(Content.load(tmp_path).vectors, content.vectors)
