"""A sharded index answers as one index of all items."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.jobs.train.publication import describe_indexes
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.index.index_fitting import compute_recall, fit_index
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.sharding.numbering import count_rows, find_items, is_own
from handsell.retrieval.sharding.sharded_index import ShardedIndex, load_index, merge_found

ITEMS, SIZE, K, SHARDS = 6001, 16, 100, 4  # the shards differ by one item
KINDS = {"ivf": {"flat_below": 500}, "ivf_pq": {"flat_below": 500, "pq_above": 600}}


@pytest.fixture(scope="module")
def clusters():
    """Vectors around 40 centers, a few of them unknown, and users that lie between two."""
    rng = np.random.default_rng(5)
    centers = rng.standard_normal((40, SIZE)) * 3

    def draw(count):
        return (centers[rng.integers(0, 40, count)] + rng.standard_normal((count, SIZE))).astype(np.float32)

    vectors = draw(ITEMS)
    vectors[rng.choice(ITEMS, 60, replace=False)] = 0
    return vectors, (draw(200) + draw(200)) / 2


def fit_both(clusters, kind=None):
    """(one index, its shards), fitted with the same settings."""
    keys = KINDS.get(kind, {"flat_below": ITEMS})
    return [
        fit_index(clusters[0], RetrievalConfig(shards=shards, **keys), K, lambda: clusters[1][:100])
        for shards in (1, SHARDS)
    ]


def draw_masks(rng, rows):
    share = rng.choice([1.0, 0.5, 0.02, 0.0], rows)
    return rng.random((rows, ITEMS)) < share[:, None]


@pytest.mark.parametrize("rows", [1, 30])
def test_exact_shards_answer_bit_for_bit(clusters, rng, rows):
    one, sharded = fit_both(clusters)
    assert isinstance(sharded, ShardedIndex) and sharded.is_exact
    queries, eligible = clusters[1][100 : 100 + rows].copy(), draw_masks(rng, rows)
    queries[rows // 2] = 0 if rows > 1 else queries[0]
    for k in (1, K, 3 * K, ITEMS):
        for a, b in zip(one.search(queries, k, eligible), sharded.search(queries, k, eligible), strict=True):
            assert np.array_equal(a, b, equal_nan=True)
    items = rng.integers(-1, ITEMS + 5, (rows, 50))
    assert np.array_equal(one.score(queries, items), sharded.score(queries, items), equal_nan=True)


def test_equal_scores_of_several_shards_are_ordered_by_item_number(clusters, rng):
    vectors = clusters[0].copy()
    vectors[rng.choice(ITEMS, 900, replace=False)] = vectors[8]
    one, sharded = fit_both((vectors, clusters[1]))
    everything = np.ones((1, ITEMS), bool)
    for k in (7, 500):
        assert np.array_equal(
            one.search(vectors[[8]], k, everything)[0], sharded.search(vectors[[8]], k, everything)[0]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_approximate_shards_have_the_lists_of_one_index(clusters, kind):
    one, sharded = fit_both(clusters, kind)
    assert {part.approximate.settings for part in sharded.parts} == {one.approximate.settings}
    lists = [part.approximate.lists for part in sharded.parts]
    for number in range(one.approximate.lists.nlist):
        sizes = [part.invlists.list_size(number) for part in lists]
        assert sum(sizes) == one.approximate.lists.invlists.list_size(number)


@pytest.mark.parametrize("kind", KINDS)
def test_approximate_shards_give_every_rank_at_least_the_score_of_one_index(clusters, kind):
    one, sharded = fit_both(clusters, kind)
    queries, everything = clusters[1][100:], np.ones((100, ITEMS), bool)
    items, scores = one.search(queries, K, everything)
    more_items, more_scores = sharded.search(queries, K, everything)
    assert (more_scores >= scores).all()
    for b in range(len(queries)):  # the same item has the same score, bit for bit
        _, at, place = np.intersect1d(items[b], more_items[b], return_indices=True)
        assert np.array_equal(scores[b, at], more_scores[b, place]) and len(at) > 0.7 * K
    truth = VectorIndex.exact(clusters[0]).search(queries, K, everything)[0]
    assert compute_recall(more_items, truth).mean() >= compute_recall(items, truth).mean() >= 0.93


@pytest.mark.parametrize("kind", KINDS)
def test_approximate_shards_answer_bit_for_bit_where_every_list_is_read(clusters, kind):
    """With all of its lists and a shortlist as long as the catalog an index is exact."""

    def read_all(index):
        settings = replace(index.approximate.settings, nprobe=index.approximate.lists.nlist, shortlist=ITEMS / K)
        return replace(index, approximate=replace(index.approximate, settings=settings))

    one, sharded = fit_both(clusters, kind)
    one, sharded = read_all(one), ShardedIndex(tuple(map(read_all, sharded.parts)))
    queries, everything = clusters[1][100:120], np.ones((20, ITEMS), bool)
    for a, b in zip(one.search(queries, K, everything), sharded.search(queries, K, everything), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 3, K, 400, 3000])
def test_k_items_are_returned_wherever_as_many_are_eligible(clusters, kind, count):
    """Also where most of them are in one shard."""
    sharded = fit_both(clusters, kind)[1]
    known = np.flatnonzero(clusters[0].any(axis=1))
    own = known[known % SHARDS == 1]
    eligible = np.zeros((4, ITEMS), bool)
    eligible[:2, known[:count]] = True
    eligible[2:, own[:count]] = True
    items, _ = sharded.search(clusters[1][:4], K, eligible)
    for b in range(4):
        assert (items[b] != -1).sum() == min(eligible[b].sum(), K)
        assert eligible[b, items[b][items[b] != -1]].all() and len(set(items[b])) in (K, eligible[b].sum() + 1)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_a_saved_index_is_one_folder_per_shard(clusters, tmp_path, kind):
    index = fit_both(clusters, kind)[1]
    everything = np.ones((5, ITEMS), bool)
    before = index.search(clusters[1][:5], K, everything)
    index.save(tmp_path / "retrievers" / "als" / "index")
    folder = tmp_path / "retrievers" / "als" / "index"
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", *(f"shard-{s}" for s in range(SHARDS))]
    loaded = load_index(folder)
    assert isinstance(loaded, ShardedIndex)
    for a, b in zip(before, loaded.search(clusters[1][:5], K, everything), strict=True):
        assert np.array_equal(a, b)
    some = np.array([[0, 17, 6000], [5, 5, 3]])
    assert np.array_equal(loaded.vectors[some], clusters[0][some]) and loaded.vectors.shape == clusters[0].shape
    assert bool(describe_indexes(tmp_path)) == (kind is not None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(1, 7))
def test_every_item_is_in_exactly_one_shard(items, shards):
    every = np.arange(items)
    parts = [every[is_own(every, s, shards)] for s in range(shards)]
    for s, part in enumerate(parts):
        assert np.array_equal(part, find_items(np.arange(count_rows(items, s, shards)), s, shards))
    assert sorted(np.concatenate(parts).tolist()) == every.tolist()
    assert not is_own(np.array([-1]), 0, shards).any() and find_items(np.array([-1]), 2, shards)[0] == -1


def test_merging_skips_padding_and_keeps_k():
    nan = np.nan
    left = np.array([[5, 1, -1]], np.int32), np.array([[3.0, 1.0, nan]], np.float32)
    right = np.array([[2, 0, 4]], np.int32), np.array([[3.0, 1.0, 1.0]], np.float32)
    items, scores = merge_found([left, right], 4)
    assert items.tolist() == [[2, 5, 0, 1]] and scores.tolist() == [[3, 3, 1, 1]]
    assert merge_found([left, right], 9)[0].tolist() == [[2, 5, 0, 1, 4, -1, -1, -1, -1]]
