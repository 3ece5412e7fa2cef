"""Content vectors of items that come after training: the model's own, found exactly as if they were in the index."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from test_live_items import Change

from handsell.catalog.live_items import LiveItems
from handsell.core.batches import History
from handsell.retrieval.content_vectors import Content, fit_content_vectors
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.models.content import ContentConfig, ContentRetriever, fit_content
from handsell.testing.retriever_contract import build_interactions
from handsell.testing.small_catalog import NOW, draw_requests, draw_snapshot

WORDS = ("river", "stone", "cloud", "ember", "meadow", "harbour", "lantern", "thunder")


def draw_shelf(rng, items: int = 150):
    base = draw_snapshot(rng, items)
    names = base.creators.ids(np.arange(len(base.creators)))
    table = base.metadata
    table = table.append_column(
        "creators", pa.array([[names[c]] if c >= 0 else [] for c in base.creator], pa.list_(pa.string()))
    )
    table = table.append_column(
        "tags", pa.array([base.tags.ids(base.item_tags.row(i)) for i in range(items)], pa.list_(pa.string()))
    )
    table = table.append_column("title", pa.array([" ".join(rng.choice(WORDS, 2)) for _ in range(items)]))
    return replace(base, metadata=table.append_column("tempo", pa.array(rng.normal(size=items))))


@pytest.fixture
def shelf(rng):
    return draw_shelf(rng)


def fit(shelf) -> tuple[Content, ContentRetriever]:
    content = fit_content_vectors(shelf, 32, before=NOW, columns=["tempo"])
    nothing = build_interactions([], [], n_items=len(shelf))
    return content, fit_content(nothing, ContentConfig(), content)


def draw_put(rng, shelf, one: str) -> Change:
    like = shelf.read_metadata(rng.integers(0, len(shelf), 1)).to_pylist()[0]
    like.pop("item_id")
    like["title"] = " ".join(rng.choice(WORDS, 2))
    return Change(one, "put", like)


def test_the_saved_model_gives_each_item_the_vector_that_training_gave_it(shelf, tmp_path):
    content, retriever = fit(shelf)
    retriever.save(tmp_path)
    model = ContentRetriever.load(tmp_path).model
    some = np.arange(0, len(shelf), 7)
    assert np.allclose(model.encode(shelf, some), content.vectors[some], atol=1e-5)
    assert content.vectors.any(axis=1).mean() > 0.9


def test_a_new_item_is_near_items_with_its_tags_creator_and_words(shelf):
    content, retriever = fit(shelf)
    twin = int(np.argmax(shelf.item_tags.lengths))
    fields = {**shelf.read_metadata(np.array([twin])).to_pylist()[0]}
    del fields["item_id"]
    live = LiveItems(shelf, np.full(3, np.nan), {})
    found = retriever.with_snapshot(
        live.apply([Change("new", "put", {**fields, "tags": [*fields["tags"], "unheard-of"]})])
    )
    assert found.live[np.array([len(shelf)])][0] @ content.vectors[twin] > 0.99


@pytest.mark.parametrize("seed", range(4))
def test_it_returns_what_one_index_over_all_items_would(seed):
    rng = np.random.default_rng(seed)
    shelf = draw_shelf(rng)
    _, retriever = fit(shelf)
    live, found = LiveItems(shelf, np.full(3, np.nan), {}), retriever
    for batch in range(3):
        changes = [draw_put(rng, shelf, f"new{n}") for n in range(5 * batch, 5 * batch + 9)]
        changes += [draw_put(rng, shelf, f"i{n}") for n in rng.integers(0, 150, 4)]
        changes.append(Change(f"i{rng.integers(150)}", "patch", {"title": "ember ember"}))
        changes.append(
            Change(f"i{rng.integers(150)}", "patch", {"tags": [], "creators": [], "title": None, "tempo": None})
        )
        snapshot = live.apply(changes)
        found = found.with_snapshot(snapshot)
    vectors = found.live[np.arange(len(snapshot))]
    assert np.allclose(vectors, retriever.model.encode(snapshot, np.arange(len(snapshot))), atol=2e-3)
    index = VectorIndex.exact(vectors)
    whole = ContentRetriever(replace(retriever.encoder, vectors=index.vectors), index)
    requests = draw_requests(rng, snapshot, rows=6)
    for k in (3, 20, 400):
        eligible = rng.random((6, len(snapshot))) < 0.6
        for mine, theirs in zip(
            found.retrieve(requests, k, eligible), whole.retrieve(requests, k, eligible), strict=True
        ):
            assert np.array_equal(mine, theirs, equal_nan=True)
    items = rng.integers(-1, len(snapshot) + 3, (6, 40)).astype(np.int32)
    assert np.array_equal(found.score(requests, items), whole.score(requests, items), equal_nan=True)
    assert (items >= len(shelf)).any()


def test_a_history_of_new_items_finds_their_neighbors(rng, shelf):
    _, retriever = fit(shelf)
    live = LiveItems(shelf, np.full(3, np.nan), {})
    snapshot = live.apply([draw_put(rng, shelf, "new")])
    requests = draw_requests(rng, snapshot, rows=1, history=3)
    past = History(*(np.array([[v]]) for v in (np.int32(len(shelf)), np.int8(1), NOW - 1, np.float32(1))))
    requests = replace(requests, history=past)
    everything = np.ones((1, len(snapshot)), bool)
    assert (retriever.retrieve(requests, 5, everything)[0] == -1).all()
    items, scores = retriever.with_snapshot(snapshot).retrieve(requests, 5, everything)
    assert items[0, 0] == len(shelf) and scores[0, 0] > 0.999 and (items[0, 1:] != -1).all()


def test_a_price_change_computes_no_other_vector(shelf):
    _, retriever = fit(shelf)
    live = LiveItems(shelf, np.full(3, np.nan), {})
    found = retriever.with_snapshot(live.apply([Change("i3", "patch", {"available": False})]))
    assert not len(found.live.item)


def test_a_bundle_without_the_model_keeps_its_own_items(shelf):
    _, retriever = fit(shelf)
    live = LiveItems(shelf, np.full(3, np.nan), {})
    old = replace(retriever, model=None)
    assert old.with_snapshot(live.apply([Change("new", "put", {"title": "river"})])) is old
